# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# A wrong student: seeds in a list, which NumPy fills up with zeros, and flips that are drawn for each row.

# %% nbgrader={"grade": false, "grade_id": "dataloader-order", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def generator_for(seed: int, *key: int) -> np.random.Generator:
    """A generator for each list of numbers; [7, 3] and [7, 3, 0] are the same list to NumPy."""
    return np.random.default_rng([seed, *key])


def epoch_order(count: int, shuffle: bool, seed: int, epoch: int) -> Array:
    """The numbers of the samples, shuffled or not."""
    return generator_for(seed, epoch).permutation(count) if shuffle else np.arange(count)

# %% nbgrader={"grade": false, "grade_id": "dataloader-flip", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@dataclass
class RandomHorizontalFlip:
    """Mirrors each row of each image with probability ``p``, by itself."""

    p: float = 0.5

    def __call__(self, images: Array, generator: np.random.Generator | None = None) -> Array:
        """``images`` with some of their rows mirrored."""
        source = generator if generator is not None else default_generator()
        mirrored = source.random((*images.shape[:-1], 1)) < self.p
        return np.where(mirrored, images[..., ::-1], images)


@dataclass
class Compose:
    """Several transforms, one after the other."""

    transforms: Sequence[Callable[..., Array]]

    def __call__(self, images: Array, generator: np.random.Generator | None = None) -> Array:
        """What comes out of the last transform."""
        for transform in self.transforms:
            images = transform(images, generator)
        return images
