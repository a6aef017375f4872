import torch

from llada_core.sampling.proposals import copy_to_host, pack, unpack

# float64 holds every id up to 2^53 exactly.
LARGEST_ID = 2**31


def packed_of(num_rows, num_alternatives, *, first_id=0):
    rows = torch.arange(num_rows)
    ids_RA = torch.arange(num_rows * num_alternatives).reshape(num_rows, num_alternatives)
    return pack(rows + first_id, rows / 10, rows / 20, rows / 30, ids_RA, ids_RA / 100)


def test_every_field_survives_the_copy():
    proposals = unpack(copy_to_host([packed_of(3, 2, first_id=LARGEST_ID)]), 2)
    assert proposals.token_ids_R.tolist() == [LARGEST_ID, LARGEST_ID + 1, LARGEST_ID + 2]
    torch.testing.assert_close(torch.tensor(proposals.confidence_R), (torch.arange(3) / 10).double())
    torch.testing.assert_close(torch.tensor(proposals.scores_R), (torch.arange(3) / 20).double())
    torch.testing.assert_close(torch.tensor(proposals.entropies_R), (torch.arange(3) / 30).double())
    assert [token_id for token_id, _ in proposals.alternatives(1)] == [2, 3]
    assert proposals.alternatives(2)[1][1] == float(torch.tensor(5) / 100)


def test_canvases_with_different_numbers_of_alternatives_share_one_copy():
    on_host = copy_to_host([packed_of(2, 0), packed_of(1, 3)])
    assert on_host.shape == (4 + 2 * 3, 3)
    without, with_three = unpack(on_host[:, :2], 0), unpack(on_host[:, 2:], 3)
    assert without.token_ids_R.tolist() == [0, 1]
    assert without.alternatives(0) == ()
    assert [token_id for token_id, _ in with_three.alternatives(0)] == [0, 1, 2]
