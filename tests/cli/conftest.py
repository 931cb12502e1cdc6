"""What these tests share with those of the packages below."""

from tests.mil.view.conftest import viewed as viewed
