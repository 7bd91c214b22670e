"""Outputs: three ways to reach a field, absent fields, copies."""

import copy
import pickle

import pytest

from isobert.core.outputs import OUTPUT_CLASSES, MaskedLMOutput, QuestionAnsweringModelOutput


def test_a_field_is_reached_by_attribute_key_and_place():
    out = QuestionAnsweringModelOutput(end_logits="e", start_logits="s", hidden_states=("h",))
    assert out.start_logits == out["start_logits"] == out[0] == "s"
    assert out[1:] == ("e", ("h",))
    assert list(out) == ["start_logits", "end_logits", "hidden_states"]


def test_an_absent_field_is_none_by_attribute_and_missing_as_key():
    out = MaskedLMOutput(logits=1, loss=None)
    assert out.loss is None
    assert "loss" not in out
    assert out.to_tuple() == (1,)
    with pytest.raises(KeyError):
        out["loss"]


def test_an_undeclared_field_is_refused_by_name():
    with pytest.raises(TypeError, match=r"no field 'scores'; its fields are loss, logits"):
        MaskedLMOutput(scores=1)
    with pytest.raises(AttributeError, match="scores"):
        _ = MaskedLMOutput(logits=1).scores


@pytest.mark.parametrize("cls", OUTPUT_CLASSES)
def test_outputs_copy_pickle_and_rebuild_from_their_items(cls):
    out = cls({name: index for index, name in enumerate(cls.fields)})
    for again in (copy.deepcopy(out), pickle.loads(pickle.dumps(out)), cls(out.items())):
        assert type(again) is cls
        assert again == out
    rebuilt = cls()
    for name in sorted(out):
        rebuilt[name] = out[name]
    assert rebuilt.to_tuple() == out.to_tuple()
