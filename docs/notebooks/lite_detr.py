# %% [markdown]
# # Lite DETR in a notebook
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{repository}/blob/main/docs/lite_detr.ipynb)
#
# Detections, the points that made them, the interleaved encoder, and key-aware attention beside plain attention. It needs no GPU
# and downloads nothing but the package, which brings a small model with it.

# %% install
# %pip install -q "litedetr @ git+https://github.com/{repository}" plotly

# %% [markdown]
# ## Detections
#
# A detector takes a path, bytes, a PIL image or an array. The photo is one that comes with the package; any other path will do:
# `detector.predict("my-photo.jpg")`.

# %%
from litedetr import Detector
from litedetr.shipped import shipped

photo = shipped("assets/examples") / "cat.jpg"
detector = Detector.from_pretrained("embedded")
result = detector.predict(photo, trace=True)
result

# %%
result.to_dict()

# %% [markdown]
# ## What happened
#
# Asked for a trace, the detector keeps every attention step. In the interleaved encoder the coarse scales S1 to S3 are updated in
# every step, the finest, S4, only in the steps called "all": it has three quarters of the tokens, and most of the cost.

# %%
result.trace

# %% [markdown]
# ## Where the detection looked
#
# In the last decoder layer the query of the best detection samples a few points on each scale, in each head. A mark is as large as
# its weight is heavy. The detection's output can be made again from exactly these points, which is what the last number says.

# %%
import base64
import io

import plotly.graph_objects as go
from PIL import Image


def points_figure(result, step, query, title):
    """A step's sampling points for one query, over the photo, a colour for each scale."""
    height, width = result.photo_size
    small = Image.fromarray(result.photo)
    small.thumbnail((640, 640))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    places = result.trace.geometry.to_photo(step.locations[query].numpy())  # (heads, levels, points, 2) in the photo's pixels
    weights = step.weights[query].numpy()
    figure = go.Figure()
    for level, name in enumerate(step.scales):
        x, y = places[:, level].reshape(-1, 2).T.round(1)
        share = weights[:, level].ravel()
        figure.add_scatter(
            x=x, y=y, mode="markers", name=name, text=[f"{weight:.1%}" for weight in share], hoverinfo="name+text",
            marker={"size": (4 + 60 * share).round(1), "opacity": 0.7},
        )
    figure.add_layout_image(
        source="data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(), xref="x", yref="y", x=0, y=0,
        sizex=width, sizey=height, sizing="stretch", layer="below",
    )
    figure.update_xaxes(range=[0, width], title="x in the photo, pixels", constrain="domain")
    figure.update_yaxes(range=[height, 0], title="y in the photo, pixels", scaleanchor="x")
    figure.update_layout(title=title, height=560, margin={"l": 60, "r": 10, "t": 50, "b": 50})
    return figure


last = result.trace.steps[-1]
query = int(result.queries[0])
print(f"rebuilt from its points, the output differs by {last.rebuild_error([query]):.1e}")
points_figure(result, last, query, f"{last.name}: where the query of the best detection ({result.names[0]}) looks")

# %% [markdown]
# ## The encoder, step by step
#
# How much did each token change in a step? The mean over the tokens of each scale: where a scale was not updated, it is 0.

# %%
names = [step.name for step in result.trace.encoder_steps]
sizes = [height * width for height, width in result.trace.spatial_shapes]
changes = [
    [float(part.norm(dim=-1).mean()) for part in (result.trace.memory(index) - result.trace.memory(index - 1)).split(sizes)]
    for index in range(len(names))
]
figure = go.Figure([
    go.Bar(x=names, y=[change[level] for change in changes], name=scale) for level, scale in enumerate(last.scales)
])
figure.update_layout(title="Mean change of a token in each encoder step", yaxis_title="length of the change", height=380)
figure

# %% [markdown]
# ## Key-aware attention beside plain attention
#
# Plain deformable attention guesses the weights of its points from the query alone. Key-aware attention samples keys at the points
# and compares the query with them. Below: the best detection's weights, and what they would be if all its points were equal.

# %%
keyed = last.weights[query].flatten(1).max(-1).values
figure = go.Figure([
    go.Bar(x=[f"head {head + 1}" for head in range(len(keyed))], y=keyed.tolist(), name="heaviest point, by key"),
    go.Bar(x=[f"head {head + 1}" for head in range(len(keyed))], y=[1 / last.weights[query][0].numel()] * len(keyed),
           name="every point alike"),
])
figure.update_layout(title="The heaviest of each head's points", yaxis_title="share of the head's attention", height=380)
figure

# %%
import torch

from litedetr import ops

shapes = ((8, 8), (4, 4))
value = torch.randn(1, 80, 2, 16)
query_, locations = torch.randn(1, 5, 2, 16), torch.rand(1, 5, 2, 2, 4, 2)
plain = ops.deformable_attention(value, shapes, locations, torch.full((1, 5, 2, 2, 4), 1 / 8))
by_key, weights = ops.key_aware_deformable_attention(query_, value, value, shapes, locations, return_weights=True)
print(plain.shape, by_key.shape, weights.sum((-1, -2)).unique())

# %% [markdown]
# ## Your own DETR
#
# `litedetr.watch` records the same trace of a deformable DETR of `transformers`, or of another code base. The weights here are
# random, so that nothing is downloaded; `from_pretrained` gives a trained one.

# %%
from importlib.util import find_spec

import litedetr

if find_spec("transformers"):
    import transformers

    config = transformers.DeformableDetrConfig(
        backbone_config=transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"]
        ),
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=32, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=10,
    )
    model = transformers.DeformableDetrForObjectDetection(config).eval()
    with torch.no_grad(), litedetr.watch(model) as trace:
        model(torch.randn(1, 3, 128, 160))
    print([step.name for step in trace.steps])

# %% [markdown]
# ## Take it with you
#
# A trace is saved as one `.npz` file with an array for every name, and loads again. An exported model runs without PyTorch.

# %%
result.trace.save("run.npz")
again = litedetr.Trace.load("run.npz")
print(again.steps[-1].name, f"{again.steps[-1].rebuild_error():.1e}")

# %%
# !litedetr export embedded --out detector.onnx      # needs: pip install onnx onnxruntime
# from litedetr.runtime import Exported
# Exported("detector.onnx").predict(photo)
