"""Metrics of imports and of providers, with the options that CDK's `metric_*` methods take."""

from collections.abc import Iterator, Mapping
from typing import Final, TypedDict

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from cdk_vm_import import _validation
from cdk_vm_import._handler import contract


class MetricOptions(TypedDict, total=False):
    """The members of `cloudwatch.MetricOptions`, but for the dimensions, which are given."""

    account: str | None
    color: str | None
    id: str | None
    label: str | None
    period: cdk.Duration | None
    region: str | None
    stack_account: str | None
    stack_region: str | None
    statistic: str | None
    unit: cloudwatch.Unit | None
    visible: bool | None


_TYPES: Final[Mapping[str, type]] = {
    "period": cdk.Duration,
    "unit": cloudwatch.Unit,
    "visible": bool,
} | dict.fromkeys(MetricOptions.__annotations__.keys() - {"period", "unit", "visible"}, str)
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricStat.html
_SHORT_PERIODS: Final = (1, 5, 10, 30)
_MINUTE: Final = 60

_STATISTICS: Final = {
    # Each import is one value. In a period without imports there is none.
    contract.Metric.DURATION: cloudwatch.Stats.MAXIMUM,
    contract.Metric.FAILED: cloudwatch.Stats.SUM,
}


def of_image(
    image: Construct, metric_name: object, dimensions: Mapping[str, str], options: MetricOptions
) -> cloudwatch.Metric:
    """Return a metric that the handler writes at the end of each import of an image.

    Args:
        image: The image.
        metric_name: A member of contract.Metric.
        dimensions: The dimensions of the image's metrics.
        options: Options of CDK.

    Raises:
        ValueError: There is no such metric, or the options are not valid.
    """
    _raise(image, [*_metric_name(metric_name), *_options(options)])
    name = contract.Metric(str(metric_name))
    metric = cloudwatch.Metric(
        namespace=contract.METRIC_NAMESPACE,
        metric_name=name.value,
        dimensions_map=dimensions,
        statistic=_STATISTICS[name],
    )
    return metric.with_(**options).attach_to(image)


def of_aws(
    scope: Construct,
    namespace: str,
    metric_name: str,
    dimensions: Mapping[str, str],
    options: MetricOptions,
) -> cloudwatch.Metric:
    """Return a metric of an AWS service that counts something.

    Args:
        scope: The construct whose metric it is.
        namespace: The namespace of the service.
        metric_name: The name of the metric.
        dimensions: The dimensions that the service documents.
        options: Options of CDK.

    Raises:
        ValueError: The options are not valid.
    """
    _raise(scope, [*_options(options)])
    metric = cloudwatch.Metric(
        namespace=namespace,
        metric_name=metric_name,
        dimensions_map=dimensions,
        statistic=cloudwatch.Stats.SUM,
    )
    return metric.with_(**options).attach_to(scope)


def _raise(scope: Construct, problems: list[str]) -> None:
    if problems:
        raise ValueError("\n".join(f"{scope.node.path}: {problem}" for problem in problems))


def _metric_name(value: object) -> Iterator[str]:
    if not (isinstance(value, str) and value in {*contract.Metric}):
        yield (
            f"metric_name {_validation.shown(value)} is not a metric of an image: use "
            f"{' or '.join(contract.Metric)}."
        )


def _options(options: MetricOptions) -> Iterator[str]:
    for name, value in options.items():
        kind = _TYPES.get(name)
        if kind is None:
            yield (
                f"{name} is not an option of this metric: use {', '.join(sorted(_TYPES))}. The "
                "dimensions are given."
            )
        elif value is not None and not isinstance(value, kind):
            yield f"{name} {_validation.shown(value)} is not a {kind.__name__}: use one."
        elif isinstance(value, cdk.Duration) and not _is_period(value):
            text = "" if value.is_unresolved() else f" {value.to_human_string()}"
            yield (
                f"period{text} is not valid: use a Duration of 1, 5, 10 or 30 seconds or of whole "
                "minutes, such as Duration.minutes(5), and not an unresolved token."
            )


def _is_period(value: cdk.Duration) -> bool:
    if value.is_unresolved():
        return False
    seconds = value.to_seconds(integral=False)
    return seconds in _SHORT_PERIODS or (seconds > 0 and seconds % _MINUTE == 0)
