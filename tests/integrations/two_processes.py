"""What test_processes runs in two processes: every budget must end both at the same step, with the same books."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as processes
from hosted import Rows, make_trainer, record

from outlay.integrations.transformers import BudgetCallback
from outlay.schedules import Rex

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, found = Path(sys.argv[1]), {}
    for number, budget in enumerate(sys.argv[2:]):
        trainer = make_trainer(
            folder / str(number), Rows(64, lengths=(8, 5, 3)), ddp_backend="gloo", eval_strategy="steps", eval_steps=5,
            eval_dataset=Rows(8, seed=1), save_strategy="steps", save_steps=10**6,
        )  # fmt: skip
        callback = BudgetCallback(budget, {"lr": Rex()}).attach(trainer)
        trainer.train()
        result = callback.result
        assert result is not None
        mine = [result.ended_by, result.steps, {unit: amount for unit, amount in result.spent.items() if unit != "seconds"}]
        both = [None, None]
        processes.all_gather_object(both, mine)
        assert both[0] == both[1] == mine, both
        if processes.get_rank() == 0:
            assert len(record(callback).steps) == result.steps
        found[budget] = [*mine, result.spent["seconds"]]
    if processes.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))
    processes.destroy_process_group()
