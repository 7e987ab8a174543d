"""The words of tensor cores, as the compiler sees them or as the simulator does."""

from ._device import SIMULATED

if SIMULATED:
    from ._tensor_simulated import (
        address_of,
        bits_of,
        copy16,
        end_of_group,
        matrices,
        multiply_matrices,
        put_words,
        rest_of,
        rounded_to_tf32,
        transposed_matrices,
        wait_for_all_but_one_group,
        word_at,
    )
else:
    from ._tensor_intrinsics import (
        address_of,
        bits_of,
        copy16,
        end_of_group,
        matrices,
        multiply_matrices,
        put_words,
        rest_of,
        rounded_to_tf32,
        transposed_matrices,
        wait_for_all_but_one_group,
        word_at,
    )

__all__ = [
    "address_of",
    "bits_of",
    "copy16",
    "end_of_group",
    "matrices",
    "multiply_matrices",
    "put_words",
    "rest_of",
    "rounded_to_tf32",
    "transposed_matrices",
    "wait_for_all_but_one_group",
    "word_at",
]
