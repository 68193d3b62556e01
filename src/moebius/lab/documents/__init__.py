"""The JSON files of a study: what each has to look like before anything reads a value of it."""

from moebius.lab.documents.error_file import ErrorFile as ErrorFile
from moebius.lab.documents.model_data import ModelData as ModelData
from moebius.lab.documents.read_document import check_form as check_form
from moebius.lab.documents.read_document import read_document as read_document
from moebius.lab.documents.results_file import ResultsFile as ResultsFile
from moebius.lab.documents.run_entry import RunEntry as RunEntry
from moebius.lab.documents.study_file import StudyFile as StudyFile
