from __future__ import annotations

import pickle

import pytest

from raccoon_fast import Code, Response, Status


@pytest.mark.parametrize("member", [*Status, *Code, Status(7)], ids=repr)
def test_text_is_the_name_on_every_python(member):
    assert str(member) == f"{member}" == "%s" % member == member.name  # noqa: UP031
    assert f"{member:>30}" == member.name.rjust(30)


def test_enum_members_are_numbers():
    assert Status.SUCCESS == 1
    assert (f"{Status.SUCCESS:d}", f"{Code.INTERNAL_ERROR:03d}", "%d" % Status.ERROR) == ("1", "003", "2")  # noqa: UP031


def test_a_number_that_is_not_known_is_kept():
    assert (str(Status(7)), int(Status(7)), Status(7) == 7) == ("UNKNOWN_7", 7, True)


def test_pickled():
    response = Response(Status.SUCCESS, Code.OK, 1, "", {"req_guid": "g"})
    assert pickle.loads(pickle.dumps(response)) == response
