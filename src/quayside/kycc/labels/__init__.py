"""Labels: good (0) or bad (1) of each party, over a window after a moment.

`observed` takes them from what happened, `simulated` draws them where nothing is known; both are kept in ``kycc.labels``,
apart. `labelled` joins them with the features of their moment, for training. Belongs here: which facts make a label. Does
not: what is learnt from it.
"""

from quayside.kycc.labels.make import LabelResult, make_labels
from quayside.kycc.labels.table import labelled

__all__ = ["LabelResult", "labelled", "make_labels"]
