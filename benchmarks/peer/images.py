"""The toolkit's images of one network and the seconds that they take, in its environment, PYTHONPATH=src:

    PYTHON -m benchmarks.peer.images NETWORK --data FOLDER --images 32 --iterations 4 --tensors FILE --out FILE.json

See benchmarks.speed --peer.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peer.toolkit import generated, versions
from benchmarks.process import row_parser
from benchmarks.speed_subject import NETWORKS, find
from zeroq.devices import threads
from zeroq.numbers.tensor_file import tensor_file_bytes
from zeroq.whole_files import json_bytes


def main() -> None:
    parser = row_parser("benchmarks.peer.images", data=True)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--tensors", type=Path, required=True, help="where the images go")
    asked = parser.parse_args()
    module, preprocessing = find(asked.network, asked.data)
    with threads(asked.threads):
        generated(module, preprocessing, asked.images, 1)  # what comes first allocates and chooses kernels
        _, one = generated(module, preprocessing, asked.images, 1)
        images, seconds = generated(module, preprocessing, asked.images, asked.iterations)
    asked.tensors.write_bytes(tensor_file_bytes({"images": images}))
    asked.out.write_bytes(json_bytes({"one_seconds": one, "seconds": seconds, "versions": versions()}))


if __name__ == "__main__":
    main()
