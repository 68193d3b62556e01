"""Keras models for `steps.py`, each in a process of its own: a process has one Keras backend.

The process waits for a line on its standard input, trains an epoch, and answers with the number of steps. While it
waits it computes nothing, so that it takes its turn among the candidates of the process that asks.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax"}


class KerasProcess:
    """A process that trains the model of one study with Keras' `fit`.

    Arguments:
        backend: of Keras.
        study: 1 or 2.
        steps: of an epoch.
        untuned: leave the allocator as it comes.
    """

    def __init__(self, backend: str, study: int, steps: int, untuned: bool):
        command = [sys.executable, __file__, str(study), str(steps), str(int(untuned))]
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def epoch(self) -> int:
        """Train an epoch; the number of steps.

        Raises:
            RuntimeError: the process has ended.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        print("epoch", file=stdin, flush=True)
        answer = stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of Keras ended with code {self.process.wait()}")
        return int(answer)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def missing_backend(backend: str) -> bool:
    """Whether Keras or the backend is not installed."""
    return any(importlib.util.find_spec(name) is None for name in ("keras", BACKENDS[backend]))


def make_model(study: int) -> Any:
    """The model of a study in Keras, compiled."""
    import keras

    layers = keras.layers
    inputs = layers.Input((32, 32, 1))
    flat = layers.Flatten()(inputs)
    if study == 1:
        gate = layers.Dense(2, activation="softmax")(flat)
        outputs = [layers.Dense(20, activation="softmax")(flat) for _ in range(2)]
    else:
        gate = layers.Dense(2, activation="softmax")(layers.Dense(64, activation="relu")(flat))
        outputs = []
        for _ in range(2):
            hidden = inputs
            for _ in range(2):
                hidden = layers.Conv2D(128, 3, padding="same", activation="relu")(hidden)
                hidden = layers.MaxPooling2D(2)(hidden)
            hidden = layers.Dense(128, activation="relu")(layers.Flatten()(hidden))
            outputs.append(layers.Dense(20)(hidden))
    mixed = layers.Dot(1)([gate, layers.Concatenate(1)([layers.Reshape((1, 20))(output) for output in outputs])])
    if study == 2:
        mixed = layers.Softmax()(mixed)
    model = keras.Model(inputs, mixed)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def make_epoch(study: int, steps: int) -> Callable[[], int]:
    """A function that trains an epoch with Keras' `fit`."""
    import numpy as np
    from steps import BATCH, random_data

    model, split = make_model(study), random_data(BATCH * steps).train
    x = (split.images.permute(0, 2, 3, 1).numpy() / 255).astype(np.float32)
    y = split.labels.numpy()

    def epoch() -> int:
        model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        return steps

    return epoch


def main() -> None:
    study, steps, untuned = map(int, sys.argv[1:])
    sys.path.insert(0, str(Path(__file__).parent))
    from moebius.kit.allocator import tune_allocator

    # Answers alone go to the standard output that was given.
    answers, sys.stdout = sys.stdout, sys.stderr
    if not untuned:
        tune_allocator()
    epoch = make_epoch(study, steps)
    for _ in sys.stdin:
        print(epoch(), file=answers, flush=True)


if __name__ == "__main__":
    main()
