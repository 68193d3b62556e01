"""The doctor names what was built into a mixture, and accuses no healthy one."""

from collections import Counter

from moebius.kit.registry import kinds
from moebius.lab.doctor import diagnose


def test_names_95_of_100_illnesses_and_accuses_at_most_one_healthy_mixture(constructed, capsys):
    cases = [*constructed.ill(), *constructed.healthy()]
    findings = {case.name: diagnose(case.model, case.rows, **case.options).kinds for case in cases}
    sick, well = [case for case in cases if case.kind], [case for case in cases if case.kind is None]
    missed = [(case.name, case.kind, findings[case.name]) for case in sick if case.kind not in findings[case.name]]
    accused = [(case.name, findings[case.name]) for case in well if findings[case.name]]
    per_kind = Counter(case.kind for case in sick)
    with capsys.disabled():
        print(f"\n{len(sick) - len(missed)} of {len(sick)} named, {len(accused)} of {len(well)} healthy accused")
        print("missed:", missed, "accused:", accused)
    assert len(cases) >= 60
    assert len(well) >= 20
    assert set(per_kind) == {kind.replace("_", " ") for kind in kinds("illnesses")}
    assert min(per_kind.values()) >= 2
    assert len(missed) <= 0.05 * len(sick)
    assert len(accused) <= 1
