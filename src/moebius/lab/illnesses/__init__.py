"""Illnesses of gates and experts: what is known of one gate in, a finding or nothing out.

Each file defines a test of the file's name, made by `illness`, which gives it a code. A test names the null that its
figure is held against, and finds something only where both hold: the interval of the figure leaves the null out, and
the figure is large enough to matter. It gives None where it cannot tell, for lack of labels or of experts' outputs.
"""

from moebius.kit.registry import open_room

open_room(__name__)
