"""The part of ONNX's protobuf schema (onnx.proto3, field numbers included) that the server reads, without `onnx`.

The parser skips all other fields, and keeps them where a message is written again.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from ..errors import GraphRefused

_Field = descriptor_pb2.FieldDescriptorProto
SCHEMA: dict[str, list[tuple[str, int, str, bool]]] = {
    # message: (field, number, type, repeated)
    "Model": [
        ("ir_version", 1, "int64", False),
        ("graph", 7, "Graph", False),
        ("opset_import", 8, "Opset", True),
        ("functions", 25, "Function", True),
    ],
    "Opset": [("domain", 1, "string", False), ("version", 2, "int64", False)],
    "Graph": [
        ("node", 1, "Node", True),
        ("initializer", 5, "Tensor", True),
        ("input", 11, "ValueInfo", True),
        ("output", 12, "ValueInfo", True),
        ("sparse_initializer", 15, "SparseTensor", True),
    ],
    "Node": [
        ("input", 1, "string", True),
        ("output", 2, "string", True),
        ("name", 3, "string", False),
        ("op_type", 4, "string", False),
        ("attribute", 5, "Attribute", True),
        ("domain", 7, "string", False),
    ],
    "Attribute": [
        ("name", 1, "string", False),
        ("i", 3, "int64", False),
        ("t", 5, "Tensor", False),
        ("g", 6, "Graph", False),
        ("tensors", 10, "Tensor", True),
        ("graphs", 11, "Graph", True),
        ("sparse_tensor", 22, "SparseTensor", False),
        ("sparse_tensors", 23, "SparseTensor", True),
    ],
    "Tensor": [
        ("name", 8, "string", False),
        ("external_data", 13, "Entry", True),
        ("data_location", 14, "int32", False),
    ],
    "SparseTensor": [("values", 1, "Tensor", False), ("indices", 2, "Tensor", False)],
    "Entry": [("key", 1, "string", False), ("value", 2, "string", False)],
    "Function": [("name", 1, "string", False), ("node", 7, "Node", True)],
    "ValueInfo": [("name", 1, "string", False), ("type", 2, "Type", False)],
    "Type": [("tensor_type", 1, "TensorType", False)],
    "TensorType": [("elem_type", 1, "int32", False), ("shape", 2, "Shape", False)],
    "Shape": [("dim", 1, "Dim", True)],
    "Dim": [("dim_value", 1, "int64", False), ("dim_param", 2, "string", False)],
}


def _model_class() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="handful_onnx.proto", package="handful_onnx", syntax="proto3")
    scalars = {"string": _Field.TYPE_STRING, "int64": _Field.TYPE_INT64, "int32": _Field.TYPE_INT32}
    for message, fields in SCHEMA.items():
        described = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            field = described.field.add(name=name, number=number, label=label)
            if kind in scalars:
                field.type = scalars[kind]
            else:
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".handful_onnx.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("handful_onnx.Model"))


_Model = _model_class()


def read_model(file: str, content: bytes) -> Any:
    """The message of an ONNX file.

    Raises:
        GraphRefused: it is none.
    """
    model: Any = _Model()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise GraphRefused("is not an ONNX file", field=file) from None
    return model
