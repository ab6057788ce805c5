from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from tests.kycc.training.conftest import small_table

from quayside.foundation.errors import InputError, UsageError
from quayside.kycc.training import TrainingConfig, split
from quayside.kycc.training.split import fingerprint, fold_numbers, labels_of

pytestmark = pytest.mark.unit


def ids(table: pa.Table) -> set[str]:
    return set(table["party_id"].to_pylist())


def test_one_date_is_split_by_party_in_proportion_and_by_seed() -> None:
    table = small_table()
    parts = split(table, TrainingConfig())
    assert parts.method == "stratified"
    assert parts.holdout.num_rows == 80
    assert ids(parts.train).isdisjoint(ids(parts.holdout))
    assert ids(parts.train) | ids(parts.holdout) == ids(table)
    assert labels_of(parts.holdout).mean() == pytest.approx(labels_of(table).mean(), abs=0.01)
    assert ids(split(table, TrainingConfig()).holdout) == ids(parts.holdout)
    assert ids(split(table, TrainingConfig(seed=1)).holdout) != ids(parts.holdout)


def test_all_rows_of_a_party_stay_together() -> None:
    table = pa.concat_tables([small_table(60), small_table(60)])
    parts = split(table, TrainingConfig(test_size=0.3))
    assert ids(parts.train).isdisjoint(ids(parts.holdout))
    folds = fold_numbers(table, labels_of(table), 5, 1)
    assert (folds[:60] == folds[60:]).all()
    assert np.bincount(folds).tolist() == [24] * 5


def test_several_dates_hold_out_the_latest() -> None:
    table = small_table(400, dates=5)
    parts = split(table, TrainingConfig())
    assert parts.method == "time"
    assert set(parts.holdout["batch_id"].to_pylist()) == {"B4"}
    assert max(parts.train["as_of"].to_pylist()) < min(parts.holdout["as_of"].to_pylist())
    assert set(split(table, TrainingConfig(test_size=0.38)).holdout["batch_id"].to_pylist()) == {"B3", "B4"}


def test_a_last_date_with_most_rows_is_no_holdout() -> None:
    table = small_table(400, dates=2)
    late = np.array(table["batch_id"].to_pylist()) == "B1"
    table = table.filter(pa.array(late | (np.arange(400) < 100)))
    assert split(table, TrainingConfig()).method == "stratified"


def test_unlabelled_rows_are_in_neither_part() -> None:
    table = small_table(50)
    label = pa.array([None if i < 10 else int(i % 2) for i in range(50)], pa.int8())
    parts = split(table.set_column(3, "label", label), TrainingConfig())
    assert parts.train.num_rows + parts.holdout.num_rows == 40


def test_what_is_no_labelled_table_is_refused() -> None:
    table = small_table(20)
    with pytest.raises(InputError, match="as_of is missing"):
        split(table.drop_columns("as_of"), TrainingConfig())
    with pytest.raises(InputError, match=r"0 \(good\) or 1"):
        split(table.set_column(3, "label", pa.array([2] * 20, pa.int8())), TrainingConfig())
    with pytest.raises(UsageError, match="test_size"):
        TrainingConfig(test_size=0.95)


def test_the_fingerprint_tells_any_difference_and_no_other() -> None:
    table = small_table(30)
    same = pa.concat_tables([table.slice(0, 7), table.slice(7)])  # other chunks, equal rows
    assert fingerprint(same) == fingerprint(table)
    for name in table.column_names:
        column = table[name].to_pylist()
        column[3] = column[4] if column[3] != column[4] else None
        changed = table.set_column(
            table.column_names.index(name), name, pa.array(column, table.schema.field(name).type)
        )
        assert fingerprint(changed) != fingerprint(table), name
