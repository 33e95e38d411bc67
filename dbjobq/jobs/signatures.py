"""Signatures of functions, and which of their parameters take a `JobContext`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, ForwardRef, Union, get_args, get_origin

from dbjobq.jobs.context import JobContext

__all__ = ["context_parameters", "signature"]

if sys.version_info >= (3, 14):  # there annotations are code, which asks for names that only type checkers import
    from annotationlib import Format

    def signature(function: Callable[..., Any], annotations: Format = Format.FORWARDREF) -> inspect.Signature:
        """Return a function's signature, whatever names its annotations use."""
        return inspect.signature(function, annotation_format=annotations)

    def _signatures(function: Callable[..., Any]) -> Iterable[inspect.Signature]:
        """Return the signature twice: with annotations evaluated, and as text, for names that cannot be evaluated."""
        return signature(function), signature(function, Format.STRING)

else:
    signature = inspect.signature

    def _signatures(function: Callable[..., Any]) -> Iterable[inspect.Signature]:
        return (inspect.signature(function),)


def context_parameters(function: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters that take a `JobContext`."""
    names = getattr(inspect.unwrap(function), "__globals__", {})
    parameters = [p for signature in _signatures(function) for p in signature.parameters.values()]
    return {parameter.name for parameter in parameters if _is_context(parameter.annotation, names)}


def _is_context(annotation: object, names: Mapping[str, object]) -> bool:
    """Tell whether an annotation names `JobContext`: alone, in `Annotated`, or as one of several types.

    Annotations, or parts of them, may be text with names that cannot be evaluated.
    """
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return any(word == "JobContext" or names.get(word) is JobContext for word in re.findall(r"\w+", annotation))
    origin = get_origin(annotation)  # of JobContext[JobQueue] it is JobContext
    parts = get_args(annotation) if origin in {Union, UnionType, Annotated} else ()
    return annotation is JobContext or origin is JobContext or any(_is_context(part, names) for part in parts)
