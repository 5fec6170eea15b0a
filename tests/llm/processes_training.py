"""The training that is run by several processes, whoever starts them."""

from llm.config import ModelConfig, RunConfig, TrainConfig

MODEL = ModelConfig(vocab_size=50, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.1)
TRAINING = TrainConfig(
    seed=3,
    max_steps=12,
    micro_batch_size=2,
    tokens_per_step=64,
    learning_rate=1e-2,
    warmup_steps=2,
    eval_every_steps=5,
    checkpoint_every_steps=4,
    keep_last=9,
)
CPU = RunConfig(device="cpu", num_threads=1, precision="fp32")
