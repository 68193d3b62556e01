"""What a model predicts for rows, and why: of a finished run for image files and rows of a table, too."""

from moebius.lab.predict.explain import explain as explain
from moebius.lab.predict.explained_rows import ExplainedRows as ExplainedRows
from moebius.lab.predict.explanation import Explanation as Explanation
from moebius.lab.predict.images import Prediction as Prediction
from moebius.lab.predict.images import load_run as load_run
from moebius.lab.predict.images import predict as predict
from moebius.lab.predict.rows import predict_rows as predict_rows
from moebius.lab.predict.subject import Subject as Subject
