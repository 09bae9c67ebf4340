# The public list. `__init__.py` reads these lines too, so each is `from MODULE import NAME as PUBLIC`.
# ruff: noqa: I001  (they are exports, in the order of a reader)

# networks
from vitexp.nn.vit import ViT as ViT
from vitexp.nn.config import ViTConfig as ViTConfig
from vitexp.nn.vit import build as build
from vitexp.tools.network import open_network as open_network
from vitexp.eval.flops import train_flops as train_flops
from vitexp.weights.load import load_weights as load_weights

# data and training, with Lightning
from vitexp.data.module import ShardData as ShardData
from vitexp.train.module import Classifier as Classifier
from vitexp.train.checkpoint import BestWeights as BestWeights
from vitexp.train.measure import FewShotProbe as FewShotProbe
from vitexp.train.recorder import RunRecorder as RunRecorder
from vitexp.configured import ConfiguredRun as ConfiguredRun
from vitexp.configured import from_config as from_config

# what a trained network can do, and what it attends to
from vitexp.eval.attention_maps import attention_rollout as attention_rollout
from vitexp.eval.attention_maps import mean_attention_distance as mean_attention_distance
from vitexp.eval.attention_maps import watch_attention as watch_attention
from vitexp.eval.fewshot import fewshot_accuracy as fewshot_accuracy
from vitexp.train.answers import read_features as read_features

# records and studies, without torch
from vitexp.record import RunRecord as RunRecord
from vitexp.record import read_record as read_record
from vitexp.record import read_records as read_records
from vitexp.study.spec import Study as Study
from vitexp.study.spec import read_study as read_study
from vitexp.study.table import Table as Table
from vitexp.study.table import make_table as make_table

__version__: str
__all__: list[str]
