"""RecTools' SASRec on given histories: CPU seconds of one more training epoch and of recommending 20 items.

Run in an environment of its own by benchmarks/sequential.py. RecTools trains on the last 51 items of a history in one
pass: earlier items are no targets, and are not counted. Its `recommend` (the unseen top 20) stands for the evaluation,
without its metrics. Items that nobody interacted with are not in its catalogue.
"""

import json
import logging
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning import Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
torch.set_num_threads(1)

histories = json.loads(Path(sys.argv[1]).read_text())["histories"]
rows = [
    (user, item, 1.0, pd.Timestamp("2020-01-01") + pd.Timedelta(position, "s"))
    for user, history in enumerate(histories, 1)
    for position, item in enumerate(history[:-2])
]
frame = pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Weight, Columns.Datetime])
dataset = Dataset.construct(frame)
targets = sum(min(50, len(h) - 3) for h in histories)


def epochs(count):
    """CPU seconds of fitting so many epochs, preparation included."""

    def trainer():
        return Trainer(
            max_epochs=count, min_epochs=count, enable_progress_bar=False, enable_model_summary=False, logger=False,
            enable_checkpointing=False, accelerator="cpu",
        )  # fmt: skip

    model = SASRecModel(
        session_max_len=50, n_blocks=2, n_heads=2, n_factors=64, loss="softmax", batch_size=128, dropout_rate=0.2,
        get_trainer_func=trainer, verbose=0,
    )  # fmt: skip
    started = time.process_time()
    model.fit(dataset)
    return time.process_time() - started, model


first, _ = epochs(1)
many, model = epochs(5)
training = (many - first) / 4
seconds = []
for _ in range(5):
    started = time.process_time()
    model.recommend(users=frame[Columns.User].unique(), dataset=dataset, k=20, filter_viewed=True)
    seconds.append(time.process_time() - started)
evaluation = sorted(seconds)[2]
print(
    json.dumps(
        {
            "targets": targets, "train_cpu_seconds": training, "targets_per_cpu_second": targets / training,
            "users_per_cpu_second": len(histories) / evaluation, "evaluation_cpu_seconds": evaluation,
        }
    )
)  # fmt: skip
