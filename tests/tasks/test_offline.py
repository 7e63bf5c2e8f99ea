"""Learning from frozen traces: the shipped file, the batches, the loss that a run minimises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import suite
from suite.recipe import Choice, recipe_for
from suite.registry import registry
from suite.train import offline
from suite.train.decode import completion_logits, token_logp
from suite.train.loop import Trainer
from suite.train.offline import OfflineTask, OfflineWorkload
from suite.train.workload import Context, DoesNotApply

INFO = registry().task("add2-offline")
TASK: OfflineTask = INFO.factory(INFO)
OBJECTIVES = [m.name for m in suite.methods(slot="offline-objective")]


def trainer(method: str = "reference", seed: int = 0, **sizes) -> Trainer:
    """A smoke run by hand; keyword arguments override the tier's sizes."""
    tier = INFO.tiers["smoke"]
    tier = replace(tier, sizes={**tier.sizes, **sizes})
    context = Context(INFO, tier, "smoke", recipe_for(INFO, method), seed, torch.device("cpu"))
    return Trainer(TASK.workload(context), context.recipe, tier.budget)


def weights(run: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in run.workload.model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, a, b))


# ------------------------------------------------------------ the shipped traces


def test_the_traces_hold_as_many_prompts_and_answers_as_stated_and_mostly_mixed_groups():
    prompts, completions = TASK.traces(TASK.frozen.prompts)
    assert prompts.tolist() == TASK.prompts("train")[: TASK.frozen.prompts].tolist()
    assert completions.shape == (TASK.frozen.prompts, TASK.frozen.samples, TASK.limit)
    right = TASK.verified(prompts.numpy(), completions.numpy())
    assert 0.25 < right.mean() < 0.5
    assert (right.any(1) & ~right.all(1)).mean() > 0.9


def test_drawing_the_traces_again_gives_them_again(tmp_path, monkeypatch):
    shipped = TASK.traces(TASK.frozen.prompts)[1]
    task = INFO.factory(INFO)
    monkeypatch.setattr(offline, "file_of", lambda task: tmp_path / "traces" / "again.safetensors")
    task.frozen = replace(task.frozen, sha256=offline.record(task))
    again = task.traces(task.frozen.prompts)[1]
    assert (again == shipped).all(-1).float().mean() > 0.99  # another machine may round the odd tie the other way


def test_changed_traces_are_refused_with_the_way_back(tmp_path, monkeypatch):
    data = bytearray(offline.file_of(TASK).read_bytes())
    data[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(data)
    monkeypatch.setattr(offline, "file_of", lambda task: tmp_path / "changed.safetensors")
    with pytest.raises(ValueError, match=r"restore it from version control .*suite\.train\.offline add2-offline"):
        TASK.traces(8)


# ------------------------------------------------------------ batches


def test_batches_hold_verified_traces_as_the_warm_start_made_them():
    run = trainer()
    run.step()
    batch = run.workload.batch
    prompts, completions = batch.tokens
    assert batch.rewards.shape == (run.workload.sizes["prompts"], TASK.frozen.samples)
    verified = TASK.verified(prompts.numpy(), completions.view(*batch.rewards.shape, -1).numpy())
    assert torch.equal(batch.rewards, torch.from_numpy(verified).float())
    assert (batch.rewards.amax(1) > batch.rewards.amin(1)).all()
    logp = token_logp(completion_logits(TASK.policy(), prompts, completions), completions)
    torch.testing.assert_close(batch.old_logp, logp, rtol=1e-5, atol=1e-5)
    for row, mask in zip(completions.tolist(), batch.mask.tolist(), strict=True):
        length = row.index(0) + 1 if 0 in row else len(row)
        assert mask == [t < length for t in range(len(row))]


def test_every_group_comes_once_an_epoch_in_an_order_of_the_seed():
    orders = []
    for seed in (0, 1, 0):
        workload = trainer(seed=seed).workload
        count = workload.sizes["prompts"]
        batches = len(workload.traces.rewards) // count
        seen = []
        for _ in range(batches):
            workload.next()
            seen += workload.batch.prompts.tolist()
        assert len({tuple(p) for p in seen}) == count * batches
        orders.append(seen)
    assert orders[0] == orders[2] != orders[1]


def test_methods_see_the_same_traces_in_the_same_order():
    runs = [trainer(method) for method in ("reference", "dpo")]
    for run in runs:
        run.workload.next()
    assert torch.equal(runs[0].workload.batch.completions, runs[1].workload.batch.completions)


def test_the_budget_is_updates_and_nothing_is_sampled_in_training(monkeypatch):
    monkeypatch.setattr("suite.train.rlvr.sample", lambda *a: pytest.fail("sampled"))
    run = trainer()
    for _ in range(3):
        run.step()
    assert run.workload.spent == 3
    assert run.workload.examples == 3 * 16 * TASK.frozen.samples


def test_a_verifier_that_errs_relabels_the_traces_before_mixed_groups_are_picked():
    exact, noisy = (trainer(m).workload.traces for m in ("reference", "verifier-false-positives"))
    for traces in (exact, noisy):
        assert (traces.rewards.amax(1) > traces.rewards.amin(1)).all()
    assert noisy.rewards.mean() > exact.rewards.mean()
    prompts, completions = noisy.tokens
    verified = TASK.verified(prompts.numpy(), completions.view(*noisy.rewards.shape, -1).numpy())
    assert (noisy.rewards.numpy() >= verified).all()


def test_a_subset_of_the_data_is_a_subset_of_the_prompts():
    whole, half = (trainer(m).workload.traces for m in ("reference", "random-subset"))
    prompts = [{tuple(p) for p in traces.prompts.tolist()} for traces in (whole, half)]
    assert prompts[1] < prompts[0]
    assert len(prompts[1]) <= 64


def test_choosing_prompts_by_fresh_answers_does_not_apply_to_fixed_ones():
    with pytest.raises(DoesNotApply, match="self-prompts chooses prompts"):
        trainer("self-prompts")


# ------------------------------------------------------------ training


def test_imitation_minimises_the_token_loss_of_the_recipe():
    for method in ("sft", "rft"):
        workload: OfflineWorkload = trainer(method).workload  # type: ignore[assignment]
        workload.next()
        prompts, completions = workload.batch.tokens
        logp = token_logp(completion_logits(workload.model, prompts, completions), completions)
        torch.testing.assert_close(workload.loss(), workload.objective.loss(workload.batch, logp))
        by_p = trainer("prob-p1" if method == "sft" else "rft+prob-p1").workload
        by_p.next()
        fitted = workload.objective.chosen(workload.batch).reshape(-1, 1) & workload.batch.mask
        torch.testing.assert_close(by_p.loss(), (1 - logp.exp())[fitted].mean())


def test_a_token_loss_does_not_apply_to_objectives_without_one():
    with pytest.raises(DoesNotApply, match="dpo has no token loss"):
        trainer("dpo+prob-p1")
    row = suite.run("add2-offline", "dpo+prob-p1", tier="smoke")
    assert row.status == "skipped"


def test_a_token_loss_that_changes_over_training_is_told_the_time():
    run = trainer("tsla")
    assert run.workload.times
    assert run.step().isfinite()


def test_a_learning_rate_of_zero_leaves_the_weights_bit_identical():
    run = trainer()
    for group in run.optimizer.param_groups:
        group["initial_lr"] = 0.0
    before = weights(run)
    for _ in range(3):
        run.step()
    assert same(before, weights(run))


@pytest.mark.parametrize("method", OBJECTIVES)
def test_every_offline_objective_trains(method):
    run = trainer(method, trace_prompts=64)
    before = weights(run)
    for _ in range(2):
        assert run.step().isfinite()
    assert not same(before, weights(run))


def test_right_traces_become_likelier_under_imitation_and_wrong_ones_less_likely_under_npo():
    shifts = {}
    for method in ("sft", "npo"):
        run = trainer(method)
        for group in run.optimizer.param_groups:
            group["initial_lr"] = 2e-4
        for _ in range(10):
            run.step()
        traces = run.workload.traces
        prompts, completions = traces.tokens
        with torch.no_grad():
            logp = token_logp(completion_logits(run.workload.model, prompts, completions), completions)
        change = ((logp - traces.old_logp) * traces.mask).sum(1).view_as(traces.rewards)
        shifts[method] = (change[traces.rewards > 0].mean().item(), change[traces.rewards == 0].mean().item())
    assert shifts["sft"][0] > 0.02
    assert shifts["npo"][1] < -0.1


def test_before_training_the_score_is_the_warm_starts():
    run = trainer(test_prompts=256)
    with run.evaluating(), torch.no_grad():
        predictions = run.workload.predict()
    metrics = TASK.score(predictions, TASK.answers(run.workload.context.tier))
    assert metrics["kl"] == 0.0
    assert metrics["retention"] == pytest.approx(1.0, abs=0.1)
    assert {"pass@1", "pass@4", "pass@16", "greedy", "format", "length", "entropy"} <= set(metrics)
    assert np.isfinite(list(metrics.values())).all()


def test_a_recipe_takes_offline_objectives_by_slot():
    recipe = recipe_for(INFO, "simpo", {"margin": 0.2})
    assert recipe["offline-objective"] == Choice("simpo", {"beta": 2.0, "margin": 0.2})
