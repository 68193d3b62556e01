"""What a finished run predicts: for image files, and for rows of a table."""

from moebius.lab.predict.images import Prediction as Prediction
from moebius.lab.predict.images import load_run as load_run
from moebius.lab.predict.images import predict as predict
from moebius.lab.predict.rows import predict_rows as predict_rows
