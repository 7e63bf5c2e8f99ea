from suite import data_method
from suite.train.data import DataMethod


@data_method("all-data", confidence="known")
class AllData(DataMethod):
    """Everything there is to train on, as it is."""
