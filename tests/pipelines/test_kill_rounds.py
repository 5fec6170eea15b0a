"""The benchmark of kills in small: `make bench-kills` does two hundred of each kind."""

import multiprocessing

import pytest
from killing import Killer, states, undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("num_states", "num_kills"), [(1, 10), (4, 6)])
def test_builds_that_are_killed_and_damaged_end_as_undisturbed_ones(tmp_path, monkeypatch, num_states, num_kills):
    caches = tmp_path / "caches"
    caches.mkdir()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(caches))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.corpus", "pandas", "awkward"])
    trip = states(tmp_path / "sources")[:num_states]
    killer = Killer(context, tmp_path, caches, seed=num_states)
    killer.travel(trip, undisturbed(tmp_path, trip), num_kills, only_changes=num_states > 1)
    assert killer.log.num_kills >= num_kills
    assert killer.log.num_completions >= num_states
