"""Board statistics: tables in, tables out; no input or output, no plots, no global random state.

A board is made from a *runs* table, one row a run (see `check_runs`), and
where there is one from the reference *ladder* (see `check_ladder`).
`board_table` gives the whole of it; the other functions give its parts.
"""

from suite.stats.adaptive import cell_states, default_looks, error_spent, look_levels, next_cells, seeds_saved
from suite.stats.aggregate import (
    interquartile_mean,
    iqm,
    iqm_interval,
    pairwise_win_rates,
    performance_profile,
    profile_area,
    profiles,
    score_profiles,
    win_rate_interval,
    win_rates,
)
from suite.stats.board import Board
from suite.stats.claims import Claim, claim_table, claim_verdict, comparison_table, margin_verdict, noise_margin
from suite.stats.elo import bradley_terry, elo_ratings
from suite.stats.intervals import (
    NO_VALUES,
    Equivalence,
    Interval,
    bootstrap_interval,
    mean_interval,
    median_interval,
    t_interval,
    tost,
    wilson_interval,
)
from suite.stats.ladder import check_ladder, effective_speedup
from suite.stats.metrics import METRICS, BoardMetric, board_table, metric_agreement
from suite.stats.paired import (
    PairedTest,
    paired_differences,
    paired_summary,
    paired_test,
    pairing_gain,
    sign_flip_test,
)
from suite.stats.power import (
    GatePower,
    gate_detectable,
    gate_failure,
    gate_power,
    minimum_detectable_effect,
    paired_power,
    seeds_needed,
    suite_false_alarm,
)
from suite.stats.ranks import (
    Comparisons,
    benjamini_hochberg,
    compact_letters,
    compare_all,
    first_place,
    holm,
    mean_ranks,
    rank_intervals,
    shares_letter,
    task_ranks,
    tie_letters,
    tier_groups,
)
from suite.stats.speedup import cell_speedups, ladder_report, suite_speedups
from suite.stats.stability import leave_one_method_out, leave_one_task_out, rank_agreement, stability_summary
from suite.stats.table import REFERENCE, Cells, TableError, check_runs
from suite.stats.tuning import best_of_k, sensitivity
from suite.stats.verdict import GateDecision, t1_decision, t2_decision, unpaired_decision

__all__ = [
    "METRICS", "NO_VALUES", "REFERENCE", "Board", "BoardMetric", "Cells", "Claim", "Comparisons", "Equivalence",
    "GateDecision", "GatePower", "Interval", "PairedTest", "TableError", "benjamini_hochberg", "best_of_k",
    "board_table", "bootstrap_interval",
    "bradley_terry", "cell_speedups", "cell_states", "check_ladder", "check_runs", "claim_table", "claim_verdict",
    "compact_letters", "compare_all", "comparison_table", "default_looks", "effective_speedup", "elo_ratings",
    "error_spent", "first_place", "gate_detectable", "gate_failure", "gate_power", "holm", "interquartile_mean",
    "iqm", "iqm_interval", "ladder_report", "leave_one_method_out", "leave_one_task_out", "look_levels",
    "margin_verdict", "mean_interval", "mean_ranks", "median_interval", "metric_agreement",
    "minimum_detectable_effect", "next_cells", "noise_margin",
    "paired_differences", "paired_power", "paired_summary", "paired_test", "pairing_gain", "pairwise_win_rates",
    "performance_profile", "profile_area", "profiles", "rank_agreement", "rank_intervals", "score_profiles",
    "seeds_needed", "seeds_saved", "sensitivity", "shares_letter", "sign_flip_test", "stability_summary",
    "suite_false_alarm", "suite_speedups", "t1_decision", "t2_decision", "t_interval", "task_ranks", "tie_letters",
    "tier_groups", "tost", "unpaired_decision", "wilson_interval", "win_rate_interval", "win_rates",
]  # fmt: skip
