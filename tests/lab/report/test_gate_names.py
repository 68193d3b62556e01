from moebius.lab.report.gate_names import expert_index, expert_path, gate_name, inner_gate, outer_gates, parent_gate

GATES = ["gate", "experts.0.1.gate", "experts.0.1.experts.2.gate", "experts.0.3.gate", "experts.10.gate"]


def test_an_expert_is_found_again_by_its_path():
    for mixture in ("", "1.mixture", "experts.10", "gate"):
        gate = gate_name(mixture)
        assert expert_index(gate, expert_path(gate, 12)) == 12
        assert expert_index(gate, f"{expert_path(gate, 12)}.0.experts.3") == 12
        assert expert_index(gate, gate) is None


def test_the_mixture_around_a_gate_is_the_innermost():
    assert [parent_gate(gate, GATES) for gate in GATES] == [None, "gate", "experts.0.1.gate", "gate", "gate"]


def test_the_first_of_the_outermost_gates_inside_an_expert():
    assert inner_gate("experts.0", GATES) == "experts.0.1.gate"
    assert inner_gate("experts.10", GATES) == "experts.10.gate"
    assert inner_gate("experts.1", GATES) is None


def test_outermost_gates_are_in_no_other_mixture():
    assert outer_gates(GATES) == ["gate"]
    assert outer_gates(GATES[1:]) == ["experts.0.1.gate", "experts.0.3.gate", "experts.10.gate"]
    assert outer_gates(["bodies.0.gate", "gate", "gate.gate"]) == ["gate"]
