// Log-softmax and negative log-likelihood of (N, C) logits; see reference.py.
//
// A block of one warp for each row: token classification has few classes. Then one block adds up the rows, each thread
// every 256th of them, so that the sum is taken in one order.
#include "arithmetic.cuh"

// What a row is given: its label, or ignore_index; labels are trusted to be classes.
template <class T>
struct Targets {
    const int64* labels;
    const T* class_weights;  // (C,) or null: all 1
    int64 ignore_index, classes;
    T label_smoothing;
    __device__ bool scored(int64 row) const { return labels[row] != ignore_index; }
    __device__ T weight(int64 c) const { return class_weights ? class_weights[c] : T(1); }
    __device__ T row_weight(int64 row) const { return scored(row) ? weight(labels[row]) : T(0); }
};

template <class T>
__global__ void __launch_bounds__(WARP_SIZE)
    cross_entropy_rows(const T* __restrict__ logits, const int64* __restrict__ labels, const T* __restrict__ class_weights,
                       T* __restrict__ row_losses, T* __restrict__ log_sum_exp, int64 classes, int64 ignore_index,
                       T label_smoothing) {
    const Targets<T> targets = {labels, class_weights, ignore_index, classes, label_smoothing};
    const int64 row = blockIdx.x;
    const T* x = logits + row * classes;
    T largest = -INFINITY, total = 0, spread = 0;
    for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) largest = larger(largest, x[c]);
    largest = warp_reduce(largest, Maximum());
    for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) total += exponential(x[c] - largest);
    const T log_total = logarithm(warp_reduce(total, Sum()));
    if (label_smoothing > T(0)) {
        for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) spread += (log_total - (x[c] - largest)) * targets.weight(c);
        spread = warp_reduce(spread, Sum());
    }
    if (threadIdx.x) return;
    log_sum_exp[row] = largest + log_total;
    T loss = 0;
    if (targets.scored(row)) {
        // both relative to the largest: near 1e3 a float log_sum_exp, and then the loss, is a multiple of 6e-5
        loss = targets.row_weight(row) * (log_total - (x[labels[row]] - largest)) * (T(1) - label_smoothing);
        if (label_smoothing > T(0)) loss += label_smoothing / T(classes) * spread;
    }
    row_losses[row] = loss;
}

template <class T>
__global__ void __launch_bounds__(256)
    cross_entropy_mean(const T* __restrict__ row_losses, const int64* __restrict__ labels,
                       const T* __restrict__ class_weights, T* __restrict__ loss, T* __restrict__ total_weight, int64 rows,
                       int64 ignore_index) {
    const Targets<T> targets = {labels, class_weights, ignore_index, 0, T(0)};
    T sum = 0, weight = 0;
    for (int64 row = threadIdx.x; row < rows; row += 256) {
        sum += row_losses[row];
        weight += targets.row_weight(row);
    }
    sum = block_reduce<256>(sum, Sum());
    weight = block_reduce<256>(weight, Sum());
    if (threadIdx.x) return;
    *loss = weight == T(0) ? T(0) : sum / weight;
    *total_weight = weight;
}

template <class T>
__global__ void __launch_bounds__(WARP_SIZE)
    cross_entropy_backward(const T* __restrict__ grad_loss, const T* __restrict__ logits, const int64* __restrict__ labels,
                           const T* __restrict__ class_weights, const T* __restrict__ log_sum_exp,
                           const T* __restrict__ total_weight, T* __restrict__ grad_logits, int64 classes,
                           int64 ignore_index, T label_smoothing) {
    const Targets<T> targets = {labels, class_weights, ignore_index, classes, label_smoothing};
    const int64 row = blockIdx.x;
    const T *x = logits + row * classes, divisor = *total_weight;
    T* grad = grad_logits + row * classes;
    if (!targets.scored(row) || divisor == T(0)) {
        for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) grad[c] = 0;
        return;
    }
    const T share = label_smoothing / T(classes), on_label = targets.row_weight(row) * (T(1) - label_smoothing);
    T total = 0, mass = 0;
    for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) {
        total += exponential(x[c] - log_sum_exp[row]);
        mass += share * targets.weight(c) + (c == labels[row] ? on_label : T(0));
    }
    total = warp_reduce(total, Sum());
    mass = warp_reduce(mass, Sum());
    // exponentials sum to 1 but for the rounding of log_sum_exp; gradients must sum to 0
    for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) {
        const T target = share * targets.weight(c) + (c == labels[row] ? on_label : T(0));
        grad[c] = (exponential(x[c] - log_sum_exp[row]) * (mass / total) - target) * (*grad_loss / divisor);
    }
}
