"""RLVR: verifiers, splits, sampling, the workload's accounting and its metrics."""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import suite
from suite.recipe import Choice, recipe_for
from suite.registry import registry
from suite.train import warmstart
from suite.train.decode import completion_logits, sample, token_entropy, token_logp
from suite.train.loop import Trainer
from suite.train.objective import Objective
from suite.train.policy import Policy
from suite.train.rlvr import RlvrTask, RlvrWorkload, majority_at_k, pass_at_k
from suite.train.workload import Context

NAMES = [t.name for t in suite.tasks(family="rlvr")]
TASKS: dict[str, RlvrTask] = {name: registry().task(name).factory(registry().task(name)) for name in NAMES}
LIMIT = TASKS["countdown3-rlvr"].limit


def trainer(name: str = "add2-rlvr", method: str = "reference", seed: int = 0, tier: str = "smoke", **sizes) -> Trainer:
    """A run by hand; keyword arguments override the tier's sizes."""
    info = registry().task(name)
    changed = replace(info.tiers[tier], sizes={**info.tiers[tier].sizes, **sizes})
    context = Context(info, changed, tier, recipe_for(info, method), seed, torch.device("cpu"))
    workload = info.factory(info).workload(context)
    return Trainer(workload, context.recipe, changed.budget)


def weights(workload: RlvrWorkload) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in workload.model.state_dict().items()}


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def tokens(task: RlvrTask, *texts: str) -> np.ndarray:
    """Completions as the sampler leaves them: ended and filled up with end tokens, or cut off at the limit."""
    rows = np.zeros((len(texts), task.limit), dtype=np.uint8)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = task.encode([text])[0][: task.limit] if text else []
    return rows


# ------------------------------------------------------------ verifiers, against a reader of plain text


def right_by_reading(name: str, prompt: str, text: str) -> bool:
    """What the task's docstring asks, read from text with other means than the task's own."""
    if name in ("add2-rlvr", "add2-offline"):
        total = sum(map(int, re.findall(r"\d+", prompt)))
        return text == str(total)[::-1]
    if name == "sort6-rlvr":
        return len(text) == 6 and Counter(text) == Counter(prompt[:6]) and list(text) == sorted(text)
    if name == "parity12-rlvr":
        return text == "".join(str(prompt[: i + 1].count("1") % 2) for i in range(12))
    if name == "countdown3-rlvr":
        *numbers, target = map(int, re.findall(r"\d+", prompt))
        if not re.fullmatch(r"\d[-+*]\d[-+*]\d", text) or sorted(map(int, text[::2])) != sorted(numbers):
            return False
        return read_value(ast.parse(text, mode="eval").body) == target
    raise AssertionError(f"{name} has no reader here")


def read_value(node: ast.expr) -> int:
    if isinstance(node, ast.BinOp):
        left, right = read_value(node.left), read_value(node.right)
        return {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}[type(node.op)]
    return node.value


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_verifier_agrees_with_an_independent_reader(name, data):
    task = TASKS[name]
    prompts = task.prompts("train").numpy()
    prompt = prompts[data.draw(st.integers(0, len(prompts) - 1))]
    answer = task.decode(task.solve(prompt[None])[0])
    scrambled = st.permutations(list(answer)).map("".join)
    edited = st.tuples(st.integers(0, len(answer) - 1), st.sampled_from(task.alphabet)).map(
        lambda edit: answer[: edit[0]] + edit[1] + answer[edit[0] + 1 :]
    )
    free = st.text(st.sampled_from(task.answer_alphabet), max_size=task.limit - 1)
    text = data.draw(st.one_of(st.just(answer), scrambled, edited, free))
    got = bool(task.verify(prompt[None], tokens(task, text))[0])
    assert got == right_by_reading(name, task.decode(prompt), text)


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_of_every_split_has_a_right_solution(name):
    task = TASKS[name]
    for split in ("train", "validation", "test"):
        prompts = task.prompts(split).numpy()
        solved = task.solve(prompts)
        assert task.verify(prompts, solved).all()
        assert task.formed(solved).all()
        for prompt, completion in zip(prompts[:100], solved[:100], strict=True):
            assert right_by_reading(name, task.decode(prompt), task.decode(completion))


def test_countdown_solutions_are_exactly_the_expressions_that_reach_the_target():
    from tasks.rlvr.countdown3 import solutions

    for numbers in ((2, 3, 7), (4, 4, 9), (1, 1, 1)):
        expected: dict[int, set[str]] = {}
        for order, operators in itertools.product(itertools.permutations(numbers), itertools.product("+-*", repeat=2)):
            text = f"{order[0]}{operators[0]}{order[1]}{operators[1]}{order[2]}"
            expected.setdefault(read_value(ast.parse(text, mode="eval").body), set()).add(text)
        found = solutions(numbers)
        assert {k: set(v) for k, v in found.items()} == {k: v for k, v in expected.items() if 0 <= k <= 99}
        assert all(len(set(v)) == len(v) for v in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_reward_hacks_earn_nothing(name):
    task = TASKS[name]
    prompts = task.prompts("train")[:50].numpy()
    for prompt, solved in zip(prompts, task.solve(prompts), strict=True):
        answer = task.decode(solved)
        other = task.decode(task.solve(prompts[:1])[0])
        hacks = {
            "": "empty",
            answer[:-1]: "cut short",
            "0" + answer: "padded in front",
            answer + "0": "padded behind",
            answer + answer: "said twice",
            answer + other: "two answers",
            task.decode(prompt)[: task.limit]: "prompt repeated",
            answer[0] * task.limit: "never ends",
        }
        for filler in sorted(set(task.alphabet) - set(task.answer_alphabet)):
            hacks |= {filler + answer: "spaced in front", answer + filler: "spaced behind"}
            hacks |= {filler.join(answer): "spaced out", answer + filler + answer: "said twice, spaced"}
        for hack, what in hacks.items():
            if hack != answer and not right_by_reading(name, task.decode(prompt), hack):
                assert not task.verify(prompt[None], tokens(task, hack[: task.limit])).any(), what
        unended = np.full((1, task.limit), solved[0], dtype=np.uint8)
        unended[0, : len(answer)] = solved[: len(answer)]
        assert not task.verify(prompt[None], unended).any()
        late = solved.copy()
        late[-1] = solved[0]
        assert not task.verify(prompt[None], late[None]).any(), "tokens after the end"


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_prompt_and_no_operand_combination(name):
    task = TASKS[name]
    texts = {s: [task.decode(p) for p in task.prompts(s).numpy()] for s in ("train", "validation", "test")}
    for a, b in itertools.combinations(texts, 2):
        assert not set(texts[a]) & set(texts[b])
        assert not set(map(task.combination, texts[a])) & set(map(task.combination, texts[b]))
    together = [text for split in texts.values() for text in split]
    assert sorted(together) == sorted(set(task.space()))
    assert len(together) == len(set(together))


def test_operand_combinations_do_not_depend_on_the_order_of_the_operands():
    assert TASKS["add2-rlvr"].combination("37+48=") == TASKS["add2-rlvr"].combination("48+37=")
    assert TASKS["sort6-rlvr"].combination("582190=") == TASKS["sort6-rlvr"].combination("098512=")
    assert TASKS["countdown3-rlvr"].combination("3,5,8:43=") == TASKS["countdown3-rlvr"].combination("8,3,5:43=")


@pytest.mark.parametrize("name", NAMES)
def test_every_tier_has_the_test_and_validation_prompts_it_states(name):
    task = TASKS[name]
    for tier in task.info.tiers.values():
        assert len(task.test_prompts(tier)) == tier.sizes["test_prompts"]
        assert len(task.prompts("validation")) >= tier.sizes["eval_prompts"]


# ------------------------------------------------------------ the warm start


@pytest.mark.parametrize("name", NAMES)
def test_warm_starts_leave_room_to_learn_and_something_to_learn_from(name):
    task = TASKS[name]
    prompts = task.prompts("test")[:128]
    drawn = sample(task.policy(), prompts, 16, task.limit, torch.Generator().manual_seed(0))
    right = task.verified(prompts.numpy(), drawn.tokens.numpy().reshape(128, 16, -1))
    assert 0.05 <= pass_at_k(right, 1) <= 0.55
    assert pass_at_k(right, 16) >= 0.6


def test_a_changed_warm_start_is_refused_with_the_way_back(tmp_path, monkeypatch):
    task = TASKS["add2-rlvr"]
    data = bytearray(warmstart.file_of(task).read_bytes())
    data[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(data)
    monkeypatch.setattr(warmstart, "file_of", lambda task: tmp_path / "changed.safetensors")
    with pytest.raises(ValueError, match="restore it from version control"):
        task.policy()


def test_training_a_warm_start_twice_gives_the_same_weights():
    info = registry().task("sort6-rlvr")
    short = info.factory(info)
    short.warm_start = replace(short.warm_start, steps=3)
    before = torch.random.get_rng_state()
    a, b = (warmstart.train(short).state_dict() for _ in range(2))
    assert same_weights(a, b)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_rebuilt_warm_start_is_written_where_it_is_loaded_from(tmp_path, monkeypatch):
    info = registry().task("sort6-rlvr")
    task = info.factory(info)
    monkeypatch.setattr(warmstart, "file_of", lambda task: tmp_path / "warm" / "sort6.safetensors")
    task.warm_start = replace(task.warm_start, steps=2)
    task.warm_start = replace(task.warm_start, sha256=warmstart.rebuild(task))
    assert same_weights(task.policy().state_dict(), warmstart.train(task).state_dict())


# ------------------------------------------------------------ sampling


@pytest.fixture(scope="module")
def double() -> tuple[Policy, torch.Tensor]:
    task = TASKS["countdown3-rlvr"]
    return task.policy().double(), task.prompts("validation")[:8]


def full_logits(policy: Policy, prompts: torch.Tensor, completions: torch.Tensor) -> torch.Tensor:
    """Logits of completion tokens from one pass over whole sequences, without a cache."""
    samples = len(completions) // len(prompts)
    whole = torch.cat([prompts.repeat_interleave(samples, 0), completions], dim=1)
    return policy(whole)[:, prompts.shape[1] - 1 : -1]


def test_sampled_log_probabilities_equal_a_teacher_forced_recomputation(double):
    policy, prompts = double
    drawn = sample(policy, prompts, 6, LIMIT, torch.Generator().manual_seed(1))
    recomputed = token_logp(full_logits(policy, prompts, drawn.tokens), drawn.tokens)
    torch.testing.assert_close(drawn.logp, recomputed.masked_fill(~drawn.mask, 0.0), rtol=1e-10, atol=1e-10)


def test_logits_with_the_cache_equal_a_full_forward_pass_and_so_do_gradients(double):
    policy, prompts = double
    drawn = sample(policy, prompts, 6, LIMIT, torch.Generator().manual_seed(1))
    slopes = []
    for logits in (completion_logits, full_logits):
        policy.zero_grad()
        found = logits(policy, prompts, drawn.tokens)
        token_entropy(found).sum().backward()
        slopes.append((found, [p.grad.clone() for p in policy.parameters()]))
    torch.testing.assert_close(slopes[0][0], slopes[1][0], rtol=1e-10, atol=1e-10)
    for cached, full in zip(slopes[0][1], slopes[1][1], strict=True):
        torch.testing.assert_close(cached, full, rtol=1e-9, atol=1e-9)


def test_reading_token_by_token_equals_reading_at_once(double):
    policy, prompts = double
    cache = policy.new_cache()
    steps = torch.cat([policy(prompts[:, t : t + 1], cache) for t in range(prompts.shape[1])], dim=1)
    torch.testing.assert_close(steps, policy(prompts), rtol=1e-10, atol=1e-10)
    assert cache.length == prompts.shape[1]


def test_a_completion_of_one_token_is_read_from_the_prompt_alone(double):
    policy, prompts = double
    completions = torch.ones(16, 1, dtype=torch.long)
    torch.testing.assert_close(
        completion_logits(policy, prompts, completions), full_logits(policy, prompts, completions)
    )


def test_completions_end_at_their_first_end_token_and_masks_include_it(double):
    policy, prompts = double
    drawn = sample(policy, prompts, 200, LIMIT, torch.Generator().manual_seed(2))
    for row, mask in zip(drawn.tokens.tolist(), drawn.mask.tolist(), strict=True):
        length = row.index(0) + 1 if 0 in row else len(row)
        assert mask == [t < length for t in range(len(row))]
        assert not any(row[length:])
    assert (drawn.logp[~drawn.mask] == 0).all()


def test_tokens_are_drawn_with_the_probabilities_of_the_policy(double):
    policy, prompts = double
    draws = 20_000
    drawn = sample(policy, prompts[:1], draws, 1, torch.Generator().manual_seed(3))
    probabilities = policy(prompts[:1])[0, -1].softmax(-1).detach()
    expected = probabilities * draws
    seen = torch.bincount(drawn.tokens[:, 0], minlength=len(expected))
    common = expected >= 5
    chi2 = ((seen - expected)[common] ** 2 / expected[common]).sum().item()
    degrees = int(common.sum()) - 1
    assert chi2 < degrees + 4 * math.sqrt(2 * degrees)


def test_greedy_decoding_takes_the_likeliest_token(double):
    policy, prompts = double
    drawn = sample(policy, prompts, 1, LIMIT, None)
    likeliest = full_logits(policy, prompts, drawn.tokens).argmax(-1)
    assert torch.equal(drawn.tokens[drawn.mask], likeliest[drawn.mask])


def test_two_policies_see_the_same_noise_whatever_they_say(double):
    policy, prompts = double
    streams = [torch.Generator().manual_seed(4) for _ in range(2)]
    sample(policy, prompts, 2, LIMIT, streams[0])
    sample(TASKS["countdown3-rlvr"].policy().double().apply(_forget), prompts, 2, LIMIT, streams[1])
    assert torch.equal(streams[0].get_state(), streams[1].get_state())


def _forget(module: torch.nn.Module) -> None:
    if isinstance(module, torch.nn.Linear):
        torch.nn.init.zeros_(module.weight)


# ------------------------------------------------------------ the workload


def test_the_budget_counts_every_generated_token():
    run = trainer()
    workload, counted = run.workload, 0
    for _ in range(3):
        run.step()
        counted += int(workload.batch.mask.sum())
        assert workload.spent == counted


def test_runs_stop_at_the_first_step_that_reaches_the_budget():
    run = trainer()
    run.run(evals=1)
    last = int(run.workload.batch.mask.sum())
    assert run.budget <= run.workload.spent < run.budget + last


def test_stored_rollouts_hold_what_the_sampling_policy_said():
    run = trainer()
    for _ in range(3):
        run.step()
    batch = run.workload.batch
    prompts, completions = batch.tokens
    logp = token_logp(completion_logits(run.workload.sampler, prompts, completions), completions)
    torch.testing.assert_close(batch.old_logp[batch.mask], logp[batch.mask], rtol=1e-4, atol=1e-5)
    rewards = run.workload.task.verified(prompts.numpy(), completions.numpy().reshape(len(prompts), -1, 4))
    assert torch.equal(batch.rewards, torch.from_numpy(rewards).float())


def test_rollouts_come_from_a_policy_refreshed_every_so_many_steps():
    run = trainer(refresh=3)
    workload = run.workload
    for step in range(7):
        before = weights(workload)
        run.step()
        fresh = same_weights(workload.sampler.state_dict(), before)
        assert fresh == (step % 3 == 0)


def test_a_learning_rate_of_zero_leaves_the_weights_bit_identical():
    run = trainer()
    for group in run.optimizer.param_groups:
        group["initial_lr"] = 0.0
    before = weights(run.workload)
    for _ in range(3):
        run.step()
    assert same_weights(before, weights(run.workload))


@pytest.mark.parametrize("method", ["reference", "dr-grpo", "dapo", "nft"])
def test_a_verifier_that_always_says_no_changes_nothing(method, monkeypatch):
    run = trainer(method=method)
    monkeypatch.setattr(run.workload.task, "verify", lambda prompts, completions: np.zeros(len(prompts), dtype=bool))
    before = weights(run.workload)
    for _ in range(3):
        run.step()
    assert same_weights(before, weights(run.workload))
    assert run.workload.spent > 0


def test_a_verifier_that_always_says_no_still_teaches_ngrpo(monkeypatch):
    run = trainer(method="ngrpo")
    monkeypatch.setattr(run.workload.task, "verify", lambda prompts, completions: np.zeros(len(prompts), dtype=bool))
    before = weights(run.workload)
    run.step()
    assert not same_weights(before, weights(run.workload))


# ------------------------------------------------------------ the slot data


def test_false_rewards_reach_training_and_never_evaluation(monkeypatch):
    run = trainer(method="verifier-false-negatives")
    run.workload.data.false_negatives = 1.0
    before, validated = weights(run.workload), trainer().evaluate()
    assert run.evaluate() == validated
    for _ in range(3):
        run.step()
    assert not run.workload.batch.rewards.any()
    assert same_weights(before, weights(run.workload))
    prompts, completions = run.workload.batch.tokens
    assert run.workload.task.verified(prompts.numpy(), completions.numpy().reshape(len(prompts), -1, 4)).any()


def test_false_rewards_are_drawn_from_a_stream_of_their_own():
    runs = [trainer(method=m) for m in ("reference", "verifier-false-positives")]
    for run in runs:
        run.workload.next()
    exact, noisy = (run.workload.batch for run in runs)
    assert torch.equal(exact.completions, noisy.completions)
    assert (noisy.rewards >= exact.rewards).all()
    assert (noisy.rewards > exact.rewards).any()


def test_self_trains_on_prompts_that_the_greedy_answer_gets_wrong_and_pays_for_asking():
    run = trainer(method="self-prompts", prompts=32)
    workload = run.workload
    asked = workload.train_prompts[
        torch.randperm(len(workload.train_prompts), generator=workload.context.generator("order"))[:32]
    ]
    greedy = sample(workload.sampler, asked, 1, workload.task.limit, None)
    failed = ~workload.task.verify(asked.numpy(), greedy.tokens.numpy())
    workload.next()
    assert torch.equal(workload.batch.prompts, asked[torch.from_numpy(failed)])
    assert 0 < len(workload.batch.prompts) < 32
    assert workload.spent == int(greedy.mask.sum()) + int(workload.batch.mask.sum())


@pytest.mark.parametrize("name", ["add2-rlvr", "countdown3-rlvr"])
def test_a_step_of_self_without_a_prompt_left_costs_its_greedy_answers_and_teaches_nothing(name, monkeypatch):
    run = trainer(name, method="self-prompts")
    monkeypatch.setattr(run.workload.task, "verify", lambda prompts, completions: np.ones(len(prompts), dtype=bool))
    before = weights(run.workload)
    for _ in range(2):
        run.step()
    assert same_weights(before, weights(run.workload))
    assert 2 * 4 * 2 <= run.workload.spent <= 2 * 8 * run.workload.task.limit


def test_a_random_subset_of_prompts_is_all_that_training_sees():
    run = trainer(method="random-subset")
    whole = trainer().workload.train_prompts
    subset = {tuple(p) for p in run.workload.train_prompts.tolist()}
    assert len(subset) == round(0.5 * len(whole))
    assert subset < {tuple(p) for p in whole.tolist()}


def test_dynamic_sampling_fills_the_batch_and_pays_for_what_it_dropped():
    run = trainer(method="dapo", prompts=48)
    run.step()
    workload = run.workload
    assert len(workload.batch.rewards) == workload.sizes["prompts"]
    assert (workload.batch.rewards.amax(1) > workload.batch.rewards.amin(1)).all()
    assert workload.whole_run.groups % workload.sizes["prompts"] == 0
    assert workload.whole_run.groups > workload.sizes["prompts"]
    assert workload.spent > int(workload.batch.mask.sum())


def test_reference_log_probabilities_are_those_of_the_warm_start():
    run = trainer(method="grpo-revkl")
    for _ in range(2):
        run.step()
    batch = run.workload.batch
    prompts, completions = batch.tokens
    logp = token_logp(completion_logits(run.workload.task.policy(), prompts, completions), completions)
    torch.testing.assert_close(batch.reference_logp, logp)


def test_rehearsal_replaces_prompts_that_the_warm_start_always_solves():
    run = trainer(method="dph-fkl", prompts=16)
    workload = run.workload
    stored = workload.stored
    probed = workload.spent
    assert probed > 0
    assert 0 < len(stored.rewards) < workload.objective.rehearsal_pool
    prompts, completions = stored.tokens
    right = workload.task.verified(prompts.numpy(), completions.numpy().reshape(*stored.rewards.shape, -1))
    assert right[:, :4].all()
    assert torch.equal(stored.mask.any(1), torch.from_numpy(right.flatten()))
    remaining = {tuple(p) for p in workload.train_prompts.tolist()}
    assert not remaining & {tuple(p) for p in prompts.tolist()}
    rehearsed = []
    for _ in range(3):
        run.step()
        batch = workload.batch
        assert batch.rehearsed[-workload.rehearsed_at_once :].all()
        assert not batch.rehearsed[: -workload.rehearsed_at_once].any()
        rehearsed += batch.prompts[batch.rehearsed].tolist()
    cycle = itertools.islice(itertools.cycle(prompts.tolist()), len(rehearsed))
    assert rehearsed == list(cycle)


def curve(seed: int, method: str = "reference") -> tuple[list[dict[str, float]], dict[str, np.ndarray]]:
    run = trainer(seed=seed, method=method)
    history = run.run(evals=2)
    with run.evaluating(), torch.no_grad():
        return [p.metrics for p in history.curve], run.workload.predict()


def test_a_run_is_determined_by_its_seed():
    (curve_a, predicted_a), (curve_b, predicted_b), (curve_c, predicted_c) = curve(0), curve(0), curve(1)
    assert curve_a == curve_b
    assert all(np.array_equal(predicted_a[k], predicted_b[k]) for k in predicted_a)
    assert curve_a != curve_c
    assert not np.array_equal(predicted_a["completions"], predicted_c["completions"])


def test_methods_start_from_the_same_prompts_and_noise():
    batches = []
    for method in ("reference", "rloo"):
        run = trainer(method=method)
        run.workload.next()
        batches.append(run.workload.batch)
    assert torch.equal(batches[0].completions, batches[1].completions)
    assert torch.equal(batches[0].prompts, batches[1].prompts)


def test_training_prompts_come_once_an_epoch():
    workload = trainer().workload
    count = len(workload.train_prompts) // 8
    seen = torch.cat([workload._next_prompts(8) for _ in range(count)])
    assert len({tuple(p) for p in seen.tolist()}) == 8 * count


def test_the_clip_fraction_counts_tokens_without_a_policy_gradient():
    run = trainer(refresh=1)
    for _ in range(2):
        run.step()
    assert run.workload.whole_run.cut == 0
    run = trainer(method="gspo", refresh=1000)
    for _ in range(4):
        run.step()
    assert 0 < run.workload.whole_run.shares()["clip_fraction"] < 1


@pytest.mark.parametrize("method", [m.name for s in ("objective", "data") for m in suite.methods(slot=s)])
def test_every_objective_and_data_method_trains(method):
    run = trainer(method=method)
    before = weights(run.workload)
    for _ in range(2):
        assert run.step().isfinite()
    assert not same_weights(before, weights(run.workload))


def test_an_objective_that_rewards_right_answers_beats_one_that_rewards_wrong_ones():
    class Backwards(Objective):
        def advantages(self, rewards, batch=None):
            return super().advantages(-rewards, batch)

    ends = {}
    for objective in (Objective(), Backwards()):
        run = trainer(prompts=16)
        run.workload.objective = objective
        for _ in range(40):
            run.step()
        ends[type(objective)] = run.evaluate()["pass@1"]
    assert ends[Objective] > ends[Backwards] + 0.15


# ------------------------------------------------------------ metrics


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_sample(n, data):
    k = data.draw(st.integers(1, n))
    right = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=3)))
    shares = [np.mean([any(draw) for draw in itertools.combinations(row.tolist(), k)]) for row in right]
    assert pass_at_k(right, k) == pytest.approx(np.mean(shares), abs=1e-12)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_needs_k_samples(k):
    with pytest.raises(ValueError, match="samples"):
        pass_at_k(np.ones((2, 4), dtype=bool), k)


@given(st.integers(1, 3), st.integers(2, 4), st.data())
def test_majority_at_k_is_the_vote_of_every_k_samples_in_a_row(blocks, k, data):
    answers = st.tuples(st.integers(0, 1), st.integers(0, 1))
    count = k * blocks + data.draw(st.integers(0, k - 1))
    samples = data.draw(st.lists(st.lists(answers, min_size=count, max_size=count), min_size=1, max_size=3))
    truth = (1, 0)
    votes = [row[b * k : (b + 1) * k] for row in samples for b in range(blocks)]
    elected = [max(dict.fromkeys(vote), key=vote.count) for vote in votes]
    right = np.array([[answer == truth for answer in row] for row in samples])
    got = majority_at_k(np.array(samples), right, k)
    assert got == pytest.approx(np.mean([answer == truth for answer in elected]), abs=1e-12)


def test_a_policy_that_is_right_more_often_than_wrong_in_any_one_way_gains_by_voting():
    completions = np.array([[[1], [2], [3], [1]], [[1], [1], [2], [2]]])
    right = completions[..., 0] == 1
    assert majority_at_k(completions, right, 4) == 1.0
    assert pass_at_k(right, 1) == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_perfect_and_of_empty_completions(name):
    task = TASKS[name]
    tier = task.info.tiers["smoke"]
    answers = task.answers(tier)
    solved = task.solve(answers["prompts"])
    scalars = {key: np.asarray(0.25) for key in ("entropy", "kl", "clip_fraction", "dead_groups")}
    samples = tier.sizes["test_samples"]
    perfect = {"completions": np.repeat(solved[:, None], samples, axis=1), "greedy": solved, **scalars}
    metrics = task.score(perfect, answers)
    assert [metrics[m] for m in ("pass@1", "pass@4", "pass@16", "maj@4", "maj@16", "greedy", "format")] == [1.0] * 7
    assert metrics["retention"] >= 1.0
    assert metrics["kl"] == 0.25
    empty = {"completions": np.zeros_like(perfect["completions"]), "greedy": np.zeros_like(solved), **scalars}
    metrics = task.score(empty, answers)
    assert [metrics[m] for m in ("pass@1", "pass@16", "maj@16", "greedy", "format", "retention")] == [0.0] * 6
    assert metrics["length"] == 1.0


def test_scores_refuse_completions_of_another_shape():
    task = TASKS["add2-rlvr"]
    answers = task.answers(task.info.tiers["smoke"])
    with pytest.raises(ValueError, match="shape"):
        task.score({"completions": answers["start"][:, :1], "greedy": answers["start"][:, 0]}, answers)


def test_before_training_the_score_is_the_warm_starts():
    run = trainer()
    with run.evaluating(), torch.no_grad():
        predictions = run.workload.predict()
    task = run.workload.task
    metrics = task.score(predictions, task.answers(run.workload.context.tier))
    assert metrics["kl"] == 0.0
    assert metrics["retention"] == pytest.approx(1.0, abs=0.1)
    assert metrics["clip_fraction"] == metrics["dead_groups"] == 0.0


def test_kl_and_entropy_are_those_of_whole_next_token_distributions():
    run = trainer()
    for _ in range(3):
        run.step()
    workload = run.workload
    prompts = workload.task.prompts("validation")[:4]
    drawn = sample(workload.model, prompts, 3, workload.task.limit, torch.Generator().manual_seed(0))
    got = workload._entropy_and_kl(prompts, drawn)
    entropies, divergences = [], []
    new = full_logits(workload.model, prompts, drawn.tokens).double().softmax(-1)
    old = full_logits(workload.reference, prompts, drawn.tokens).double().softmax(-1)
    for i, t in drawn.mask.nonzero().tolist():
        p, q = new[i, t].tolist(), old[i, t].tolist()
        entropies.append(-sum(a * math.log(a) for a in p))
        divergences.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    assert got["entropy"] == pytest.approx(np.mean(entropies), rel=1e-4)
    assert got["kl"] == pytest.approx(np.mean(divergences), rel=1e-2)
    assert got["kl"] > 0


def test_evaluation_does_not_disturb_training():
    disturbed, plain = trainer(), trainer()
    for _ in range(3):
        disturbed.step()
        plain.step()
        disturbed.evaluate()
    assert same_weights(weights(disturbed.workload), weights(plain.workload))


def test_exhibits_are_json_and_say_which_completions_earned_their_reward():
    run = trainer()
    with run.evaluating(), torch.no_grad():
        shown = json.loads(json.dumps(run.workload.exhibits()))
    assert shown["kind"] == "transcripts"
    texts = [(item["prompt"], c["text"], c["reward"]) for item in shown["items"] for c in item["completions"]]
    assert len(texts) >= 16
    for prompt, text, reward in texts:
        assert reward == float(right_by_reading("add2-rlvr", prompt, text))


def test_the_smoke_tier_runs_through_the_public_interface():
    result = suite.run("add2-rlvr", "dr-grpo", tier="smoke", seed=0)
    assert result.status == "ok"
    assert result.score == result.metrics["pass@1"]
    assert {"greedy", "pass@4", "pass@16", "retention", "entropy", "length", "kl", "format"} <= set(result.metrics)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bar"),
    [
        ("add2-offline", 0.75),
        ("add2-rlvr", 0.85),
        ("sort6-rlvr", 0.85),
        ("countdown3-rlvr", 0.5),
        ("parity12-rlvr", 0.45),
    ],
)
def test_the_reference_learns_the_task_in_the_quick_tier(name, bar):
    assert suite.run(name, tier="quick", seed=0).score >= bar


def test_an_unknown_hyper_parameter_of_an_objective_is_named():
    with pytest.raises(TypeError, match="clip_up"):
        suite.method("grpo").make(clip_up=0.3)


def test_a_recipe_takes_objectives_by_slot():
    recipe = recipe_for(registry().task("add2-rlvr"), "dapo", {"clip_high": 0.3})
    assert recipe["objective"] == Choice("dapo", {"clip_low": 0.2, "clip_high": 0.3, "rounds": 10})
