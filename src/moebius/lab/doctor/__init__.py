"""What a mixture suffers from, and what to try: `diagnose`, and the remedies that are tried on held-out rows."""

from moebius.lab.doctor.diagnose import diagnose as diagnose
from moebius.lab.doctor.diagnosis import Diagnosis as Diagnosis
