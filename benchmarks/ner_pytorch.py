"""The recipe of examples/ner_finetune.py with PyTorch and transformers, on the same batches: what F1, how fast?

    pip install -e ".[reference]"
    python benchmarks/ner_pytorch.py --model FOLDER [--data FOLDER] [--epochs 5] [--lr 2e-4] [--seed 0]

The text goes through minitl (the reference tests show that tokens and labels equal transformers'), everything after
it is PyTorch's: model, dropout, AdamW, schedule, clipping. Batches are padded to their longest sentence.
"""

import argparse
import time

import numpy as np
import torch
from transformers import AutoModelForTokenClassification, get_linear_schedule_with_warmup

from minitl.metrics import entity_scores
from minitl.text import TextTokenizer, batch_count, batches, decode, encode_dataset, load_corpus, read_folder


def padded(packed):
    """A PackedBatch as padded tensors: input_ids, attention_mask, labels, each (B, S)."""
    lengths = np.diff(packed.cu_seqlens)
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids, labels = np.zeros(mask.shape, dtype=np.int64), np.full(mask.shape, -100, dtype=np.int64)
    ids[mask], labels[mask] = packed.input_ids, packed.labels
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)), torch.from_numpy(labels)


@torch.no_grad()
def entity_f1(model, sentences, encoded, labels):
    model.eval()
    tags = {}
    for batch in batches(encoded, 32, shuffle=False):
        ids, mask, _ = padded(batch.packed)
        logits = model(ids, attention_mask=mask).logits[mask.bool()].numpy()
        tags.update(decode(batch, logits, labels))
    return entity_scores([s.tags for s in sentences], [tags[number] for number in range(len(sentences))]).f1


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    data = load_corpus() if args.data is None else read_folder(args.data)
    tokenizer = TextTokenizer.from_folder(args.model)
    train, dev, test = (
        encode_dataset(part, tokenizer, data.labels.ids, args.max_length) for part in (data.train, data.dev, data.test)
    )
    model = AutoModelForTokenClassification.from_pretrained(args.model, num_labels=len(data.labels))
    exempt = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": exempt, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=True)
    total = args.epochs * batch_count(train, args.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, total // 10, total)
    best, best_state, tokens, seconds = -1.0, None, 0, 0.0
    for epoch in range(args.epochs):
        model.train()
        start = time.perf_counter()
        for batch in batches(train, args.batch_size, seed=args.seed, epoch=epoch):
            ids, mask, labels = padded(batch.packed)
            model(ids, attention_mask=mask, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            tokens += batch.packed.token_count
        seconds += time.perf_counter() - start
        f1 = entity_f1(model, data.dev, dev, data.labels)
        print(f"epoch {epoch + 1}: dev entity F1 {f1:.3f}", flush=True)
        if f1 > best:
            best, best_state = f1, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best_state)
    test_f1 = entity_f1(model, data.test, test, data.labels)
    print(f"best dev {best:.3f}, test {test_f1:.3f}, {tokens / seconds:,.0f} tokens/s")


if __name__ == "__main__":
    main()
