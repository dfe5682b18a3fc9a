"""RecBole's SASRec on given histories: CPU seconds of one training epoch and of one full-ranking evaluation.

Run in an environment of its own by benchmarks/sequential.py. RecBole trains on every prefix of a history, cut to its
last 50 items: one target an example, so no target is lost. Its rate is that of the first eight batches of 2,048.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import torch

_load = torch.load
torch.load = lambda *a, **k: _load(*a, **{**k, "weights_only": False})  # RecBole 1.2.1 predates the safe default
torch.set_num_threads(1)

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.model.sequential_recommender import SASRec  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import init_seed  # noqa: E402

BATCHES = 8
USERS = 256  # judged at once: of sequential models RecBole counts users, not scores
given = json.loads(Path(sys.argv[1]).read_text())
histories, items = given["histories"], given["items"]
folder = Path("given")
folder.mkdir()
with (folder / "given.inter").open("w") as file:
    file.write("user_id:token\titem_id:token\ttimestamp:float\n")
    for user, history in enumerate(histories, 1):
        for position, item in enumerate(history):
            file.write(f"{user}\t{item}\t{position}\n")
with (folder / "given.item").open("w") as file:  # the catalogue: items without an interaction are scored, too
    file.write("item_id:token\n")
    file.writelines(f"{item}\n" for item in range(1, items + 1))

config = Config(
    model="SASRec",
    dataset="given",
    config_dict={
        "data_path": str(Path.cwd()), "MAX_ITEM_LIST_LENGTH": 50, "hidden_size": 64, "inner_size": 256, "n_layers": 2,
        "n_heads": 2, "loss_type": "CE", "train_neg_sample_args": None, "train_batch_size": 2048, "use_gpu": False,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "eval_batch_size": USERS, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2,
        "metrics": ["Hit", "NDCG", "MRR"], "topk": [5, 10, 20], "valid_metric": "NDCG@10", "epochs": 1,
        "show_progress": False, "state": "ERROR",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
    },
)  # fmt: skip
init_seed(1, True)
dataset = create_dataset(config)
train, _, test = data_preparation(config, dataset)
model = SASRec(config, train.dataset)
trainer = Trainer(config, model)


class First:
    """The first batches of an epoch, shuffled as it is: enough for a rate."""

    def __iter__(self):
        return itertools.islice(iter(train), BATCHES)


targets = min(len(train.dataset), BATCHES * config["train_batch_size"])
started = time.process_time()
trainer._train_epoch(First(), 0, show_progress=False)
training = time.process_time() - started
trainer.evaluate(test, load_best_model=False)
seconds = []
for _ in range(5):
    started = time.process_time()
    trainer.evaluate(test, load_best_model=False)
    seconds.append(time.process_time() - started)
evaluation = sorted(seconds)[2]
fixed = torch.randn(USERS, dataset.item_num)
model.full_sort_predict = lambda batch: fixed[: len(batch)].clone()  # scores that cost nothing
judging = []
for _ in range(5):
    started = time.process_time()
    trainer.evaluate(test, load_best_model=False)
    judging.append(time.process_time() - started)
alone = sorted(judging)[2]
print(
    json.dumps(
        {
            "judged_alone_per_cpu_second": len(histories) / alone, "items": dataset.item_num - 1,
            "targets": targets,
            "train_cpu_seconds": training,
            "targets_per_cpu_second": targets / training,
            "users_per_cpu_second": len(histories) / evaluation,
            "evaluation_cpu_seconds": evaluation,
        }
    )
)  # fmt: skip
