"""Sony's model-compression-toolkit beside this project, run in an environment of its own."""
