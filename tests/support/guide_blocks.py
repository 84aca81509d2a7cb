"""The code of the multi-framework guide, block by block and in its order, with the package's new name; comments left out."""

# ruff: noqa: E501  (as long as the guide has them)

from __future__ import annotations

BLOCKS: dict[str, str] = {}

BLOCKS["factory"] = """
from fo_onnx.data_generator.factory import create_data_generator
generator = create_data_generator(framework='pytorch', model=model, dataset=dataset, batch_size=32, device='cuda')
"""

BLOCKS["direct_imports"] = """
from fo_onnx.data_generator.torch_first_order_generator import FirstOrderDataGenerator
from fo_onnx.data_generator.jax_first_order_generator import FirstOrderDataGenerator
from fo_onnx.data_generator.tensorflow_generator import TensorFlowDataGenerator
from fo_onnx.data_generator.first_order_datagenerator import FirstOrderDataGenerator
"""

BLOCKS["torch_quick_start"] = """
import torch
from torch.utils.data import Dataset, DataLoader
from fo_onnx.data_generator.torch_first_order_generator import FirstOrderDataGenerator, FirstOrderDataset, output_dataloader
model = torch.load('pretrained_model.pt')
model.eval()
generator = FirstOrderDataGenerator(model=model, device='cuda' if torch.cuda.is_available() else 'cpu', batch_size=64, output_mode='logits', model_name='resnet50')
distributions = generator.generate_distributions(dataset, progress=True)
generator.save_distributions('pytorch_dists.json', distributions, meta={'framework': 'pytorch', 'device': 'cuda'})
"""

BLOCKS["torch_devices"] = """
generator = FirstOrderDataGenerator(model=model, device='cuda')
generator = FirstOrderDataGenerator(model=model, device='cuda:1')
generator = FirstOrderDataGenerator(model=model, device='cpu')
"""

BLOCKS["torch_training"] = """
fo_loader = output_dataloader(base_dataset=dataset, distributions=distributions, batch_size=32, shuffle=True, num_workers=4, pin_memory=True)
for inputs, labels, target_dists in fo_loader:
    inputs = inputs.to(device)
    target_dists = target_dists.to(device)
    logits = model(inputs)
    loss = torch.nn.functional.kl_div(torch.nn.functional.log_softmax(logits, dim=-1), target_dists, reduction='batchmean')
    loss.backward()
    optimizer.step()
"""

BLOCKS["torch_posteriors"] = """
posterior_dists = generator.get_posterior_distributions()
torch.save(posterior_dists, 'posterior_params.pt')
"""

BLOCKS["torch_nested_tensors"] = """
data = {'images': torch.randn(10, 3, 224, 224), 'metadata': {'features': torch.randn(10, 128)}}
data_on_device = generator.to_device(data)
"""

BLOCKS["torch_best_practices"] = """
model.eval()
with torch.no_grad():
    distributions = generator.generate_distributions(dataset)
generator = FirstOrderDataGenerator(model=model, device='cuda', batch_size=256 if torch.cuda.get_device_properties(0).total_memory > 16000000000.0 else 64)
torch.cuda.empty_cache()
distributions = generator.generate_distributions(dataset, progress=True)
torch.cuda.empty_cache()
"""

BLOCKS["jax_quick_start"] = """
import jax
import jax.numpy as jnp
from fo_onnx.data_generator.jax_first_order_generator import FirstOrderDataGenerator, FirstOrderDataset, output_dataloader

def model_fn(x):
    return jnp.dot(x, params['W']) + params['b']
generator = FirstOrderDataGenerator(model=model_fn, device='gpu', batch_size=64, output_mode='logits')
distributions = generator.generate_distributions(jax_dataset, progress=True)
generator.save_distributions('jax_dists.json', distributions)
"""

BLOCKS["jax_devices"] = """
generator = FirstOrderDataGenerator(model=model_fn, device='gpu')
generator = FirstOrderDataGenerator(model=model_fn, device='gpu:1')
generator = FirstOrderDataGenerator(model=model_fn, device='tpu')
devices = jax.devices()
print(f'Available: {[str(d) for d in devices]}')
"""

BLOCKS["jax_jit"] = """
import jax

@jax.jit
def model_fn(x):
    return forward_pass(x, params)
generator = FirstOrderDataGenerator(model=model_fn, device='gpu')
distributions = generator.generate_distributions(dataset)
"""

BLOCKS["jax_vmap"] = """
def single_prediction(x):
    return model_fn(x)
batched_model = jax.vmap(single_prediction)
generator = FirstOrderDataGenerator(model=batched_model, device='gpu')
"""

BLOCKS["jax_nested_arrays"] = """
data = {'images': jnp.array(images), 'labels': jnp.array(labels)}
data_on_device = generator.to_device(data)
nested_data = {'inputs': {'images': jnp.array(images), 'features': jnp.array(features)}, 'metadata': jnp.array(metadata)}
data_on_device = generator.to_device(nested_data)
"""

BLOCKS["jax_best_practices"] = """
images = jnp.zeros((batch_size, 224, 224, 3), dtype=jnp.float32)

def pure_model(params, x):
    return forward(params, x)

@jax.jit
def generate_batch_dists(model, x):
    logits = model(x)
    return jax.nn.softmax(logits, axis=-1)
generator = FirstOrderDataGenerator(model=lambda x: model_fn(x, static_params=True), device='gpu')
"""

BLOCKS["tensorflow_quick_start"] = """
import tensorflow as tf
from fo_onnx.data_generator.tensorflow_generator import TensorFlowDataGenerator
model = tf.keras.models.load_model('pretrained_model.h5')
dataset = tf.data.Dataset.from_tensor_slices((x, y))
dataset = dataset.batch(32)
generator = TensorFlowDataGenerator(model=model, dataset=dataset, batch_size=32, device='GPU:0')
results = generator.generate()
generator.save('tf_results.json')
"""

BLOCKS["tensorflow_pipeline"] = """
dataset = tf.data.Dataset.from_tensor_slices((images, labels))
dataset = dataset.map(preprocess_fn)
dataset = dataset.batch(batch_size)
dataset = dataset.prefetch(tf.data.AUTOTUNE)
generator = TensorFlowDataGenerator(model=model, dataset=dataset, batch_size=32)
"""

BLOCKS["tensorflow_strategy"] = """
strategy = tf.distribute.MirroredStrategy()
with strategy.scope():
    model = create_model()
    generator = TensorFlowDataGenerator(model=model, dataset=dataset, batch_size=32 * strategy.num_replicas_in_sync)
"""

BLOCKS["tensorflow_tpu"] = """
resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
tf.config.experimental_connect_to_cluster(resolver)
tf.tpu.experimental.initialize_tpu_system(resolver)
strategy = tf.distribute.TPUStrategy(resolver)
with strategy.scope():
    model = create_model()
    generator = TensorFlowDataGenerator(model=model, dataset=dataset)
"""

BLOCKS["tensorflow_best_practices"] = """
@tf.function
def model_predict(model, x):
    return model(x, training=False)
dataset = dataset.prefetch(tf.data.AUTOTUNE)
tf.keras.mixed_precision.set_global_policy('mixed_float16')
model.trainable = False
"""

BLOCKS["agnostic_quick_start"] = """
from fo_onnx.data_generator.first_order_datagenerator import FirstOrderDataGenerator, SimpleDataLoader

def my_model(inputs):
    return predictions
generator = FirstOrderDataGenerator(model=my_model, batch_size=64, output_mode='logits')

class MyDataset:

    def __len__(self):
        return len(self.data)

    def __getitem__(self, idx):
        return (self.data[idx], self.labels[idx])
distributions = generator.generate_distributions(MyDataset())
loader = SimpleDataLoader(dataset, batch_size=32, shuffle=True)
for batch in loader:
    pass
"""

BLOCKS["one_file_for_all"] = """
from fo_onnx.data_generator.torch_first_order_generator import FirstOrderDataGenerator
torch_gen = FirstOrderDataGenerator(model=torch_model)
torch_gen.save_distributions('dists.json', distributions)
from fo_onnx.data_generator.jax_first_order_generator import FirstOrderDataGenerator
jax_gen = FirstOrderDataGenerator(model=jax_model)
dists, meta = jax_gen.load_distributions('dists.json')
"""

BLOCKS["metadata"] = """
generator.save_distributions('dists.json', distributions, meta={'framework': 'pytorch', 'device': 'cuda', 'model_name': 'resnet50'})
"""

BLOCKS["conversion"] = """
torch_tensor = torch.randn(10, 10)
numpy_array = torch_tensor.cpu().numpy()
jax_array = jnp.array(numpy_array)
jax_array = jnp.ones((10, 10))
numpy_array = np.array(jax_array)
torch_tensor = torch.from_numpy(numpy_array)
"""

BLOCKS["torch_to_jax"] = """
import torch
from fo_onnx.data_generator.torch_first_order_generator import FirstOrderDataGenerator
torch_model = torch.load('model.pt')
torch_gen = FirstOrderDataGenerator(model=torch_model, device='cuda')
dists = torch_gen.generate_distributions(torch_dataset)
import jax
from fo_onnx.data_generator.jax_first_order_generator import FirstOrderDataGenerator

def jax_model_fn(x):
    return jax_forward_pass(x, converted_params)
jax_gen = FirstOrderDataGenerator(model=jax_model_fn, device='gpu')
dists = jax_gen.generate_distributions(jax_dataset)
"""

BLOCKS["datasets_of_both"] = """
class PyTorchDataset(torch.utils.data.Dataset):

    def __getitem__(self, idx):
        return (self.data[idx], self.labels[idx])

class JAXDataset:

    def __getitem__(self, idx):
        return (jnp.array(self.data[idx]), jnp.array(self.labels[idx]))
"""

BLOCKS["benchmark_setup"] = """
dataset_size = 10000
num_classes = 10
batch_size = 64
device = 'GPU'
"""

BLOCKS["optimization"] = """
torch.backends.cudnn.benchmark = True
torch.set_float32_matmul_precision('high')

@jax.jit
def optimized_model(x):
    return model(x)
tf.config.optimizer.set_jit(True)
"""

BLOCKS["out_of_memory"] = """
generator = FirstOrderDataGenerator(model=model, batch_size=32)
torch.cuda.empty_cache()
"""

BLOCKS["same_device"] = """
model = model.to(device)
generator = FirstOrderDataGenerator(model=model, device=device)
"""

BLOCKS["deleted_array"] = """
x_copy = jnp.array(x)
"""

BLOCKS["without_jit"] = """
with jax.disable_jit():
    distributions = generator.generate_distributions(dataset)
"""

BLOCKS["precision"] = """
jax_array = jnp.array(torch_tensor.numpy(), dtype=jnp.float32)
"""

BLOCKS["summary"] = """
model.eval()
batch_size = 64
distributions = generator.generate_distributions(dataset, progress=True)
meta = {'framework': 'pytorch', 'device': device, 'timestamp': datetime.now().isoformat(), 'model_name': 'resnet50', 'accuracy': 0.95}
"""

BLOCKS["summary_by_framework"] = """
with torch.no_grad():
    distributions = generator.generate_distributions(dataset)

@jax.jit
def optimized_forward(x):
    return model(x)

@tf.function
def predict(x):
    return model(x, training=False)
"""
