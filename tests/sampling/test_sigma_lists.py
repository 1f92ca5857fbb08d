"""Lists of sigmas: what a text or SIGMAS says, which steps of a table are kept, and what distilled weights want."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.request import HIGH, HIGH_ONLY, LOW, SIGMA_SCHEDULES, RequestError, Sampling
from pipeline.sampling.schedule import describe_run, sigma_table, sigmas_of, spans, split_warning, step_count
from pipeline.sampling.sigma_lists import DISTILLED, LIGHTX2V, THINNED, THINNED_14, THINNED_18, TURBO, read_sigmas


def kept(**settings: object) -> list[int]:
    """The steps of the official table that are kept, counted from 0."""
    sampling = Sampling(seed=0, **settings)
    steps = sampling.num_inference_steps
    table = sigma_table(int(steps / sampling.denoise), sampling.shift)[-(steps + 1):].tolist()
    return [table.index(sigma) for sigma in sigmas_of(sampling)[:-1]]


def test_every_named_list_is_known() -> None:
    assert {*THINNED, *DISTILLED} == {*SIGMA_SCHEDULES[1:]}


def test_thinned_tables_of_30_steps_are_those_that_were_measured() -> None:
    assert kept(sigma_schedule=THINNED_14) == [0, 3, 6, 9, *range(11, 30, 2)]
    assert kept(sigma_schedule=THINNED_18) == [0, 3, 6, 9, 11, 13, 15, 17, 19, *range(21, 30)]


@pytest.mark.parametrize("name", THINNED)
@pytest.mark.parametrize("settings", [{}, {"shift": 8.0}, {"boundary": 0.5}, {"denoise": 0.4}, {"boundary": 0.0}],
                         ids=str)
def test_thinned_tables_of_any_count(name: str, settings: dict) -> None:
    """Each expert keeps its first step, as many as the name says, and all that it has where it has no more."""
    for steps in range(1, 101):
        whole = Sampling(seed=0, num_inference_steps=steps, **settings)
        thin = Sampling(seed=0, num_inference_steps=steps, sigma_schedule=name, **settings)
        found = kept(num_inference_steps=steps, sigma_schedule=name, **settings)
        for (expert, of_whole), of_thin in zip(spans(whole).items(), spans(thin).values(), strict=True):
            most = {HIGH: THINNED[name][0], LOW: sum(THINNED[name][1])}[expert]
            mine = [step for step in found if step in of_whole]
            assert len(mine) == len(of_thin) == min(most, len(of_whole)) and mine[:1] == [*of_whole][:1]
        assert found == sorted(set(found)) and sigmas_of(thin)[-1] == 0.0
        assert step_count(thin) == len(found)


@pytest.mark.parametrize(("name", "sigmas"), [(LIGHTX2V, (1, 0.9375, 0.8333, 0.625)),
                                              (TURBO, (0.995025, 0.933781, 0.852895, 0.608979))])
def test_distilled_lists_split_in_half_whatever_the_table_would_be(name: str, sigmas: tuple[float, ...]) -> None:
    sampling = Sampling(seed=0, num_inference_steps=31, shift=3.0, sigma_schedule=name, guidance_scale=1.0)
    assert sigmas_of(sampling).tolist() == pytest.approx([*sigmas, 0], abs=1e-4)
    assert spans(sampling) == {HIGH: range(2), LOW: range(2, 4)} and split_warning(sampling) == ""
    assert "Only 4 steps, 2 + 2, at guidance 5" in split_warning(Sampling(seed=0, sigma_schedule=name))


def test_a_list_of_ones_own() -> None:
    sampling = Sampling(seed=0, sigmas=(0.98, 0.9, 0.5))
    assert sigmas_of(sampling).tolist() == [0.98, 0.9, 0.5, 0.0]
    assert describe_run(sampling).startswith("steps 1-2 high-noise, 3-3 low-noise. Only 3 steps")
    half = Sampling(seed=0, sigmas=(1.0, 0.9, 0.5, 0.3), denoise=0.5)
    assert sigmas_of(half).tolist() == [0.5, 0.3, 0.0], "its last steps, as SplitSigmasDenoise cuts"
    assert split_warning(Sampling(seed=0, sigmas=tuple(np.linspace(0.6, 0.1, 20)))) == "", "a given clip is changed"
    with pytest.raises(RequestError, match=r"Change the boundary .*, the shift, the sigmas or denoise"):
        describe_run(Sampling(seed=0, sigmas=(0.5,), stage=HIGH_ONLY))


@pytest.mark.parametrize("text", ["1, 0.9375, .8333", "1 0.9375 .8333 0", "1,0.9375,,.8333, 0.0\n",
                                  "1e0\n.9375\t8.333e-1"])
def test_a_list_as_text(text: str) -> None:
    assert read_sigmas(text) == (1.0, 0.9375, 0.8333)


def test_no_list() -> None:
    assert read_sigmas("") == read_sigmas(" \n") == ()


@pytest.mark.parametrize(("given", "said"), [
    ("1, half, 0", "sigmas has 'half', which is no number"),
    ("[1, 0.5]", r"sigmas has '\[1', which is no number"),
    ("1; 0.5", "sigmas has '1;', which is no number"),
    (", ,", "sigmas is ', ,', without a number"),
    ("0", "sigmas lists the end, 0, and no step"),
    (0.5, "neither text nor a SIGMAS"),
    (torch.ones(2, 2), "neither text nor a SIGMAS"),
    (torch.zeros(1), "neither text nor a SIGMAS with a step in it"),
    (torch.tensor([1.0, 0.91]), "The SIGMAS in sigmas end at 0.91; a whole list ends at 0"),
])
def test_what_is_no_list(given: object, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read_sigmas(given)


def test_sigmas_of_other_nodes_keep_their_bits_and_the_boundary() -> None:
    """A 0.9 in float32 is a little below 0.9, and would be the other expert's step."""
    table = torch.from_numpy(sigma_table(10, 1.0)).float()
    found = read_sigmas(table)
    assert torch.equal(torch.tensor([*found, 0.0]), table) and found[1] == 0.9
    assert spans(Sampling(seed=0, sigmas=found)) == spans(Sampling(seed=0, num_inference_steps=10, shift=1.0))
