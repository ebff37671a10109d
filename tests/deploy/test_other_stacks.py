"""What a second image does to a recipe in another stack, for each way in which it has the ARN."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from contract import ResourceType
from local_aws.client.cdk_cli import CdkCli, CdkError
from local_aws.client.environment import CHECKOUT
from tests.deploy.deployed import Account, StackView, numbers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


class Stacks:
    """The two stacks of tests/deploy/other_stack_app.py."""

    def __init__(self, account: Account, folder: Path) -> None:
        self._account, self._name = account, f"other-{next(numbers)}"
        app = f"{sys.executable} {CHECKOUT / 'tests/deploy/other_stack_app.py'}"
        self._cdk = CdkCli(account.local, folder, app=app)
        self.images, self._recipes = (
            StackView(account, f"{self._name}-{which}") for which in ("images", "recipes")
        )
        self._context: dict[str, str] = {}

    def deploy(self, way: str, task: str, **recipe: str) -> str:
        """Deploy both; return the ARN of the image."""
        self._context = {"name": self._name, "way": way, "task": task, **recipe}
        self._cdk.deploy(**self._context)
        return self.image()

    def image(self) -> str:
        """The ARN of the image of the stack."""
        (image,) = self.images.resources(ResourceType.IMAGE).values()
        return image

    def parent(self) -> str:
        """The parent image of the recipe in the other stack."""
        (recipe,) = self._recipes.resources("AWS::ImageBuilder::ImageRecipe").values()
        described = self._account.images.get_image_recipe(imageRecipeArn=recipe)
        return str(described["imageRecipe"]["parentImage"])

    def destroy(self) -> None:
        self._cdk.destroy(**self._context)


@pytest.fixture
def stacks(account: Account, tmp_path: Path) -> Stacks:
    """Two stacks that are not deployed yet."""
    return Stacks(account, tmp_path)


@pytest.fixture
def tasks(account: Account) -> list[str]:
    """The ids of two import tasks."""
    return [account.import_image() for _ in range(2)]


def test_a_parameter_with_the_arn_brings_a_second_image_to_another_stack(
    stacks: Stacks, tasks: list[str]
) -> None:
    first = stacks.deploy("PARAMETER", tasks[0])
    assert stacks.parent() == first

    second = stacks.deploy("PARAMETER", tasks[1])

    assert stacks.parent() == second != first
    stacks.destroy()


def test_a_weak_reference_keeps_the_first_image_until_the_other_stack_changes(
    stacks: Stacks, tasks: list[str]
) -> None:
    first = stacks.deploy("WEAK", tasks[0])

    second = stacks.deploy("WEAK", tasks[1])
    assert stacks.parent() == first != second

    assert stacks.deploy("WEAK", tasks[1], description="changed") == second
    assert stacks.parent() == second
    stacks.destroy()


def test_a_strong_reference_refuses_a_second_image_until_it_is_made_weak(
    stacks: Stacks, tasks: list[str]
) -> None:
    first = stacks.deploy("STRONG", tasks[0])

    with pytest.raises(CdkError, match="cannot be updated as it is in use by"):
        stacks.deploy("STRONG", tasks[1])
    assert stacks.images.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.image() == stacks.parent() == first

    # MiniStack does not notice an update that changes nothing but the function, so the recipe has
    # another description too.
    stacks.deploy("BOTH", tasks[0], description="changed")
    assert stacks.deploy("WEAK", tasks[0], description="changed") == first
    assert stacks.deploy("WEAK", tasks[1], description="changed") != first
    stacks.destroy()
