"""The rows of training steps, and whether they are the same in every epoch."""

from moebius.lab.data.augmented_views import make_augmented_views
from moebius.lab.data.split import Split
from moebius.lab.training.settings import Settings


class TrainingRows:
    """The training rows as they are, or `make_augmented_views` augmented copies of them that take turns, one an epoch.

    Arguments:
        split: the training rows, on the device.
        settings: how the model is trained.
        seed: of the views.
        is_trainable: whether there will be steps at all.
    """

    def __init__(self, split: Split, settings: Settings, seed: int, is_trainable: bool = True):
        self.count = len(split)
        self.views = settings.views if is_trainable and settings.augment else None
        # Whether each step augments its rows anew, and by what.
        self.drawn_anew = bool(settings.augment) and self.views is None
        self.augmentations = settings.augment if self.drawn_anew else []
        self.name = "training"
        self.split = split
        if self.views is not None:
            functions = [each.function for each in settings.augment]
            augmentations = [(type(each).__name__, sorted(vars(each).items())) for each in functions]
            self.name = f"views {self.views} {seed} {augmentations}"
            self.split = make_augmented_views(split, settings.augment, self.views, seed)

    def of(self, epoch: int) -> tuple[Split, int]:
        """The rows of an epoch (from 0), and the position of the first of them among all."""
        if self.views is None:
            return self.split, 0
        first = self.count * (epoch % self.views)
        rows = slice(first, first + self.count)
        return self.split.take(rows), first
