"""Seeded generators of hostile input, one file for each way into moebius."""

from mutations.folders import Folders
from mutations.models import Models
from mutations.overrides import Overrides
from mutations.parquet import Parquet
from mutations.pictures import Pictures
from mutations.recipes import Recipes
from mutations.studies import Studies
from mutations.tables import Tables

ENTRIES = {
    "recipes": Recipes,
    "overrides": Overrides,
    "models": Models,
    "pictures": Pictures,
    "folders of pictures": Folders,
    "parquet files of pictures": Parquet,
    "tables": Tables,
    "studies": Studies,
}
