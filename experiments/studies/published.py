"""The name under which `experiments.reproduce` imports the data sets that can be reproduced."""

from experiments.studies.reproduce import DATASETS as DATASETS
