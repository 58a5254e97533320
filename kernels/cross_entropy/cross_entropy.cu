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
    cross_entropy_rows(const T* __restrict__ logits, const int64* __restrict__ labels,
                       const Wide<T>* __restrict__ class_weights, Wide<T>* __restrict__ row_losses,
                       Wide<T>* __restrict__ log_sum_exp, int64 classes, int64 ignore_index, Wide<T> label_smoothing) {
    typedef Wide<T> A;
    const Targets<A> targets = {labels, class_weights, ignore_index, classes, label_smoothing};
    const int64 row = blockIdx.x;
    const T* x = logits + row * classes;
    A largest = -INFINITY, total = 0, spread = 0;
    for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) largest = larger(largest, widen(x[c]));
    largest = warp_reduce(largest, Maximum());
    for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) total += exponential(widen(x[c]) - largest);
    const A log_total = logarithm(warp_reduce(total, Sum()));
    if (label_smoothing > A(0)) {
        for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE)
            spread += (log_total - (widen(x[c]) - largest)) * targets.weight(c);
        spread = warp_reduce(spread, Sum());
    }
    if (threadIdx.x) return;
    log_sum_exp[row] = largest + log_total;
    A loss = 0;
    if (targets.scored(row)) {
        // both relative to the largest: near 1e3 a float log_sum_exp, and then the loss, is a multiple of 6e-5
        loss = targets.row_weight(row) * (log_total - (widen(x[labels[row]]) - largest)) * (A(1) - label_smoothing);
        if (label_smoothing > A(0)) loss += label_smoothing / A(classes) * spread;
    }
    row_losses[row] = loss;
}

template <class T>
__global__ void __launch_bounds__(256)
    cross_entropy_mean(const Wide<T>* __restrict__ row_losses, const int64* __restrict__ labels,
                       const Wide<T>* __restrict__ class_weights, Wide<T>* __restrict__ loss,
                       Wide<T>* __restrict__ total_weight, int64 rows, int64 ignore_index) {
    typedef Wide<T> A;
    const Targets<A> targets = {labels, class_weights, ignore_index, 0, A(0)};
    A sum = 0, weight = 0;
    for (int64 row = threadIdx.x; row < rows; row += 256) {
        sum += row_losses[row];
        weight += targets.row_weight(row);
    }
    sum = block_reduce<256>(sum, Sum());
    weight = block_reduce<256>(weight, Sum());
    if (threadIdx.x) return;
    *loss = weight == A(0) ? A(0) : sum / weight;
    *total_weight = weight;
}

template <class T>
__global__ void __launch_bounds__(WARP_SIZE)
    cross_entropy_backward(const Wide<T>* __restrict__ grad_loss, const T* __restrict__ logits,
                           const int64* __restrict__ labels, const Wide<T>* __restrict__ class_weights,
                           const Wide<T>* __restrict__ log_sum_exp, const Wide<T>* __restrict__ total_weight,
                           T* __restrict__ grad_logits, int64 classes, int64 ignore_index, Wide<T> label_smoothing) {
    typedef Wide<T> A;
    const Targets<A> targets = {labels, class_weights, ignore_index, classes, label_smoothing};
    const int64 row = blockIdx.x;
    const T* x = logits + row * classes;
    const A divisor = *total_weight;
    T* grad = grad_logits + row * classes;
    if (!targets.scored(row) || divisor == A(0)) {
        for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) grad[c] = narrow<T>(A(0));
        return;
    }
    const A share = label_smoothing / A(classes), on_label = targets.row_weight(row) * (A(1) - label_smoothing);
    A total = 0, mass = 0;
    for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) {
        total += exponential(widen(x[c]) - log_sum_exp[row]);
        mass += share * targets.weight(c) + (c == labels[row] ? on_label : A(0));
    }
    total = warp_reduce(total, Sum());
    mass = warp_reduce(mass, Sum());
    // exponentials sum to 1 but for the rounding of log_sum_exp; gradients must sum to 0
    for (int64 c = threadIdx.x; c < classes; c += WARP_SIZE) {
        const A target = share * targets.weight(c) + (c == labels[row] ? on_label : A(0));
        const A p = exponential(widen(x[c]) - log_sum_exp[row]) * (mass / total);
        grad[c] = narrow<T>((p - target) * (*grad_loss / divisor));
    }
}
