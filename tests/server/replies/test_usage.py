from server.replies.usage import Usage


def test_a_prompt_counts_once_however_many_choices_follow_it():
    usages = [Usage(prompt_tokens=3, completion_tokens=count, denoising_steps=2, forward_passes=4) for count in (5, 7)]
    assert Usage.of_choices(usages, choices_per_prompt=2) == Usage(3, 12, 4, 8)
    assert Usage.of_choices(usages, choices_per_prompt=1) == Usage(6, 12, 4, 8)


def test_a_prompts_tokens_are_cached_if_no_choice_had_to_compute_them():
    usages = [Usage(9, 1, 1, 1, cached_tokens=count) for count in (0, 8, 4, 8)]
    assert Usage.of_choices(usages, choices_per_prompt=2).cached_tokens == 4
    assert Usage.of_choices(usages, choices_per_prompt=1).cached_tokens == 20


def test_the_three_shapes_count_the_same():
    usage = Usage(
        prompt_tokens=3, completion_tokens=5, denoising_steps=2, forward_passes=4, cache_passes=1, cached_tokens=2
    )
    completion, response, score = usage.as_completion(), usage.as_response(), usage.as_score()
    counts = {
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "total_tokens": 8,
        "denoising_steps": 2,
        "forward_passes": 4,
        "cache_passes": 1,
    }
    details = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 0}}
    assert completion == counts | details
    assert [response[name] for name in ("input_tokens", "output_tokens", "total_tokens")] == [3, 5, 8]
    assert response["input_tokens_details"]["cached_tokens"] == 2
    assert (response["denoising_steps"], response["forward_passes"], response["cache_passes"]) == (2, 4, 1)
    assert score == {name: count for name, count in counts.items() if name not in ("denoising_steps", "cache_passes")}
