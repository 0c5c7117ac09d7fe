// Activation functions, for linear layers and gated units.
#pragma once
#include "device.cuh"

enum Activation { NONE, GELU, GELU_TANH, RELU, SILU, TANH };

// f(u), and f′(u).
__device__ __forceinline__ float activate(int activation, float u, float& derivative) {
  switch (activation) {
    case GELU: {
      float cdf = 0.5f * (1.0f + erff(u * 0.70710678f));
      derivative = cdf + u * 0.39894228f * expf(-0.5f * u * u);
      return u * cdf;
    }
    case GELU_TANH: {
      float inner = 0.79788456f * (u + 0.044715f * u * u * u), t = tanhf(inner);
      derivative = 0.5f * (1.0f + t) + 0.5f * u * (1.0f - t * t) * 0.79788456f * (1.0f + 3.0f * 0.044715f * u * u);
      return 0.5f * u * (1.0f + t);
    }
    case RELU: derivative = u > 0.0f ? 1.0f : 0.0f; return u > 0.0f ? u : 0.0f;
    case SILU: {
      float s = 1.0f / (1.0f + expf(-u));
      derivative = s * (1.0f + u * (1.0f - s));
      return u * s;
    }
    case TANH: {
      float t = tanhf(u);
      derivative = 1.0f - t * t;
      return t;
    }
    default: derivative = 1.0f; return u;
  }
}
