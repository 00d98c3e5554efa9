"""How good a network is on labelled data: data, tasks, predictors, and the evaluation itself."""

from zeroq.evaluate.data import Arrays, LabelledData, open_data
from zeroq.evaluate.evaluation import Predict, evaluate
from zeroq.evaluate.pictures import Pictures, calibration_pictures, open_pictures
from zeroq.evaluate.predict import OnnxPredictor, metadata_of, onnx_predictor, preprocessing_of
from zeroq.evaluate.restatistic import measure_statistics
from zeroq.evaluate.tasks import TASKS, Data, Task

__all__ = [
    "TASKS",
    "Arrays",
    "Data",
    "LabelledData",
    "OnnxPredictor",
    "Pictures",
    "Predict",
    "Task",
    "calibration_pictures",
    "evaluate",
    "measure_statistics",
    "metadata_of",
    "onnx_predictor",
    "open_data",
    "open_pictures",
    "preprocessing_of",
]
