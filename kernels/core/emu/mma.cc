// mma.sync, ldmatrix, stmatrix, wgmma.
#include <cstdio>

#include "internal.h"

namespace kw::emu {
static inline float bf(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
static inline float hf(uint16_t h) {
  uint32_t s = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023, u;
  float f;
  if (e == 31)
    u = s | 0x7f800000 | m << 13;
  else if (e)
    u = s | (e + 112) << 23 | m << 13;
  else {
    f = (float)m * 5.9604644775390625e-08f;
    std::memcpy(&u, &f, 4);
    u |= s;
  }
  std::memcpy(&f, &u, 4);
  return f;
}

struct MmaArg {
  void* d;
  const uint32_t *a, *b;
  const void* c;
  MmaType t;
};
void mma(MmaType t, void* d, const uint32_t* a, const uint32_t* b, const void* c, Loc loc) {
  MmaArg arg{d, a, b, c, t};
  warp_coll(
      Op::Mma, 0xffffffffu, true, &arg,
      [](void* const* L, uint32_t, Loc) {
        ++stats().mma;
        MmaType t = ((MmaArg*)L[0])->t;
        if (t == MmaType::s8) {
          int8_t A[16][32], B[8][32];
          int D[16][8];
          for (int l = 0; l < 32; ++l) {
            auto* x = (MmaArg*)L[l];
            int g = l >> 2, q = l & 3;
            for (int i = 0; i < 4; ++i) std::memcpy(&A[g + (i & 1) * 8][q * 4 + (i >> 1) * 16], &x->a[i], 4);
            for (int i = 0; i < 2; ++i) std::memcpy(&B[g][q * 4 + i * 16], &x->b[i], 4);
            for (int i = 0; i < 4; ++i) D[g + (i >> 1) * 8][q * 2 + (i & 1)] = ((const int*)x->c)[i];
          }
          for (int m = 0; m < 16; ++m)
            for (int n = 0; n < 8; ++n) {
              int s = D[m][n];
              for (int k = 0; k < 32; ++k) s += A[m][k] * B[n][k];
              D[m][n] = s;
            }
          for (int l = 0; l < 32; ++l)
            for (int i = 0; i < 4; ++i)
              ((int*)((MmaArg*)L[l])->d)[i] = D[(l >> 2) + (i >> 1) * 8][(l & 3) * 2 + (i & 1)];
          return;
        }
        auto cv = t == MmaType::bf16 ? bf : hf;
        float A[16][16], B[16][8], D[16][8];
        for (int l = 0; l < 32; ++l) {
          auto* x = (MmaArg*)L[l];
          int g = l >> 2, q = (l & 3) * 2;
          for (int i = 0; i < 4; ++i) {
            int r = g + (i & 1) * 8, k = q + (i >> 1) * 8;
            A[r][k] = cv((uint16_t)x->a[i]);
            A[r][k + 1] = cv((uint16_t)(x->a[i] >> 16));
          }
          for (int i = 0; i < 2; ++i) {
            B[q + i * 8][g] = cv((uint16_t)x->b[i]);
            B[q + i * 8 + 1][g] = cv((uint16_t)(x->b[i] >> 16));
          }
          for (int i = 0; i < 4; ++i) D[g + (i >> 1) * 8][q + (i & 1)] = ((const float*)x->c)[i];
        }
        for (int m = 0; m < 16; ++m)
          for (int k = 0; k < 16; ++k) {
            float a = A[m][k];
            for (int n = 0; n < 8; ++n) D[m][n] += a * B[k][n];
          }
        for (int l = 0; l < 32; ++l)
          for (int i = 0; i < 4; ++i)
            ((float*)((MmaArg*)L[l])->d)[i] = D[(l >> 2) + (i >> 1) * 8][(l & 3) * 2 + (i & 1)];
      },
      loc);
}

struct LdArg {
  uint32_t* r;
  int num;
  bool trans;
  uint32_t addr;
};
static int conflicts(void* const* L, int num) {  // extra wavefronts: each phase moves 8 rows of 16 bytes
  int extra = 0;
  for (int p = 0; p < num; ++p) {
    int cnt[8] = {};
    uint32_t seen[8];
    int mx = 1;
    for (int i = 0; i < 8; ++i) {
      uint32_t a = ((LdArg*)L[p * 8 + i])->addr;
      bool dup = false;
      for (int j = 0; j < i; ++j) dup |= seen[j] == a;
      seen[i] = a;
      if (!dup && ++cnt[a >> 4 & 7] > mx) mx = cnt[a >> 4 & 7];
    }
    extra += mx - 1;
  }
  return extra;
}
void ldmatrix(uint32_t* r, int num, bool trans, uint32_t addr, Loc loc) {
  LdArg arg{r, num, trans, addr};
  warp_coll(
      Op::Ldmatrix, 0xffffffffu, true, &arg,
      [](void* const* L, uint32_t, Loc loc) {
        ++stats().ldmatrix;
        int num = ((LdArg*)L[0])->num;
        bool tr = ((LdArg*)L[0])->trans;
        Warp* w = rt->running->warp;
        for (int i = 0; i < num; ++i) {
          uint16_t M[8][8];
          for (int k = 0; k < 8; ++k) {
            uint32_t a = ((LdArg*)L[i * 8 + k])->addr, off;
            if (a % 16) fail("alignment", "ldmatrix row address is not 16-byte aligned", loc);
            Block* b = resolve(a, &off, 16, loc);
            if (rt->opt.race) shadow_thread(w->f[i * 8 + k], b, off, 16, false, loc);
            std::memcpy(M[k], b->arena + off, 16);
          }
          for (int l = 0; l < 32; ++l) {
            int g = l >> 2, q = (l & 3) * 2;
            uint32_t lo = tr ? M[q][g] : M[g][q], hi = tr ? M[q + 1][g] : M[g][q + 1];
            ((LdArg*)L[l])->r[i] = lo | hi << 16;
          }
        }
        if (rt->opt.bank) stats().ld_conflicts += (uint64_t)conflicts(L, num);
      },
      loc);
}
void stmatrix(const uint32_t* r, int num, bool trans, uint32_t addr, Loc loc) {
  LdArg arg{(uint32_t*)r, num, trans, addr};
  warp_coll(
      Op::Stmatrix, 0xffffffffu, true, &arg,
      [](void* const* L, uint32_t, Loc loc) {
        int num = ((LdArg*)L[0])->num;
        bool tr = ((LdArg*)L[0])->trans;
        Warp* w = rt->running->warp;
        for (int i = 0; i < num; ++i) {
          uint16_t M[8][8];
          for (int l = 0; l < 32; ++l) {
            int g = l >> 2, q = (l & 3) * 2;
            uint32_t v = ((LdArg*)L[l])->r[i];
            (tr ? M[q][g] : M[g][q]) = (uint16_t)v;
            (tr ? M[q + 1][g] : M[g][q + 1]) = (uint16_t)(v >> 16);
          }
          for (int k = 0; k < 8; ++k) {
            uint32_t a = ((LdArg*)L[i * 8 + k])->addr, off;
            if (a % 16) fail("alignment", "stmatrix row address is not 16-byte aligned", loc);
            Block* b = resolve(a, &off, 16, loc);
            if (rt->opt.race) shadow_thread(w->f[i * 8 + k], b, off, 16, true, loc);
            std::memcpy(b->arena + off, M[k], 16);
          }
        }
        if (rt->opt.bank) stats().ld_conflicts += (uint64_t)conflicts(L, num);
      },
      loc);
}

// ---- wgmma: every warp of the group computes its own 16 rows ------------------------------------------
struct Desc {
  uint32_t start, lbo, sbo, base, sw;
};
static Desc decode(uint64_t d) {
  return {(uint32_t)(d & 0x3fff) << 4, (uint32_t)(d >> 16 & 0x3fff) << 4, (uint32_t)(d >> 32 & 0x3fff) << 4,
          (uint32_t)(d >> 49 & 7), (uint32_t)(d >> 62)};
}
// Address of the 16-byte chunk that holds (mn, k..) for K-major, (mn.., k) for MN-major; 2-byte elements.
static uint32_t chunk_addr(const Desc& d, bool mn_major, int mn, int k) {
  uint32_t a;
  const uint32_t W = d.sw == 1 ? 8 : d.sw == 2 ? 4 : d.sw == 3 ? 2 : 1;  // 16-byte units per row
  if (!mn_major)
    a = d.start + (uint32_t)(mn / 8) * d.sbo + (uint32_t)(mn % 8) * W * 16 +
        (d.sw ? (uint32_t)(k / 8) * 16 : (uint32_t)(k / 8) * d.lbo);
  else if (d.sw)
    a = d.start + (uint32_t)(mn / 8) % W * 16 + (uint32_t)(mn / 8) / W * d.lbo + (uint32_t)(k % 8) * W * 16 +
        (uint32_t)(k / 8) * d.sbo;
  else
    a = d.start + (uint32_t)(mn / 8) * d.sbo + (uint32_t)(k % 8) * 16 + (uint32_t)(k / 8) * d.lbo;
  uint32_t m = d.sw == 1 ? 7 : d.sw == 2 ? 3 : d.sw == 3 ? 1 : 0;
  return a ^ (a >> 7 & m) << 4;
}
template <class F>
static void for_chunks(const Desc& d, bool mn_major, int mn0, int mn, F f) {  // f(addr, mn, k)
  if (!mn_major) {
    for (int i = mn0; i < mn0 + mn; ++i)
      for (int k = 0; k < 16; k += 8) f(chunk_addr(d, false, i, k), i - mn0, k);
  } else
    for (int i = mn0; i < mn0 + mn; i += 8)
      for (int k = 0; k < 16; ++k) f(chunk_addr(d, true, i, k), i - mn0, k);
}
static void wg_exec(Warp* w, WgOp& o) {
  Block* b = w->blk;
  const int N = o.n, row0 = (w->id % (int)b->warps.size() % 4) * 16;
  auto cv = o.f16 ? hf : bf;
  static thread_local float A[16][16], B[16][256];
  auto load = [&](uint64_t desc, bool mnm, int mn0, int mn, auto put) {
    Desc d = decode(desc);
    for_chunks(d, mnm, mn0, mn, [&](uint32_t a, int i, int k) {
      check_range(b, a, 16, "wgmma operand", o.loc);
      uint16_t h[8];
      std::memcpy(h, b->arena + a, 16);
      for (int e = 0; e < 8; ++e)
        if (mnm)
          put(i + e, k, cv(h[e]));
        else
          put(i, k + e, cv(h[e]));
    });
  };
  if (o.rs)
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i) {
        int r = (l >> 2) + (i & 1) * 8, k = (l & 3) * 2 + (i >> 1) * 8;
        A[r][k] = cv((uint16_t)o.a[l][i]);
        A[r][k + 1] = cv((uint16_t)(o.a[l][i] >> 16));
      }
  else
    load(o.da, o.ta, row0, 16, [&](int m, int k, float v) { A[m][k] = v; });
  load(o.db, o.tb, 0, N, [&](int n, int k, float v) { B[k][n] = v; });
  float* D = o.acc->v.data();
  if (!o.scale_d) std::fill(D, D + 16 * N, 0.f);
  for (int m = 0; m < 16; ++m) {
    float* d = D + m * N;
    for (int k = 0; k < 16; ++k) {
      float a = A[m][k];
      const float* bb = B[k];
      for (int n = 0; n < N; ++n) d[n] += a * bb[n];
    }
  }
  --o.acc->inflight;
}
static uint64_t hash_acc(const AccBuf& a) {
  uint64_t h = 1469598103934665603ULL;
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < a.n / 2; ++i) {
      uint32_t u;
      std::memcpy(&u, &a.d[l][i], 4);
      h = (h ^ u) * 1099511628211ULL;
    }
  return h;
}
static int acc_row(int l, int i) { return (l >> 2) + (i >> 1 & 1) * 8; }
static int acc_col(int l, int i) { return (i >> 2) * 8 + (l & 3) * 2 + (i & 1); }
static void write_back(Warp* w, AccBuf* a) {
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < a->n / 2; ++i) a->d[l][i] = a->v[(size_t)(acc_row(l, i) * a->n + acc_col(l, i))];
  w->acc_hash[a->d[0]] = hash_acc(*a);
  for (size_t i = 0; i < w->accs.size(); ++i)
    if (w->accs[i].get() == a) {
      w->accs.erase(w->accs.begin() + (long)i);
      break;
    }
}
struct WgArg {
  float* d;
  int n;
  const uint32_t* a;
  uint64_t da, db;
  bool sd, ta, tb, f16;
};
void wgmma(float* d, int n, const uint32_t* a, uint64_t da, uint64_t db, bool sd, bool ta, bool tb, bool f16, Loc loc) {
  if (n % 8 || n < 8 || n > 256) fail("wgmma", "N must be a multiple of 8 up to 256", loc);
  WgArg arg{d, n, a, da, db, sd, ta, tb, f16};
  warp_coll(
      Op::Wgmma, 0xffffffffu, true, &arg,
      [](void* const* L, uint32_t, Loc loc) {
        auto* x = (WgArg*)L[0];
        Warp* w = rt->running->warp;
        Block* b = w->blk;
        ++stats().wgmma;
        if (b->warps.size() < 4 || (w->id % (int)b->warps.size()) / 4 * 4 + 4 > (int)b->warps.size())
          fail("wgmma", "the warp is not part of a full warpgroup", loc);
        for (int l = 1; l < 32; ++l) {
          auto* y = (WgArg*)L[l];
          if (y->da != x->da || y->db != x->db || y->sd != x->sd)
            fail("wgmma", "descriptors or scale-d differ between lanes of a warp", loc);
        }
        for (int i = 0; i < 2; ++i) {
          if (i == 0 && x->a) continue;
          Desc e = decode(i ? x->db : x->da);
          if (e.base) fail("wgmma", "matrix-base-offset other than 0 is not modelled", loc);
          if (i ? x->tb : x->ta) {
            if (e.sw && e.sbo == 0) fail("wgmma", "MN-major descriptor without a stride byte offset", loc);
          } else if (e.sbo == 0 && (i ? x->n : 64) > 8)
            fail("wgmma", "descriptor without a stride byte offset", loc);
        }
        AccBuf* acc = nullptr;
        for (auto& k : w->accs)
          if (k->d[0] == x->d) acc = k.get();
        w->trace.push_back(x->db * 31 + (uint64_t)x->n * 7 + (x->a ? 1 : x->da) + x->sd);
        if (!acc) {
          auto nb = std::make_unique<AccBuf>();
          acc = nb.get();
          acc->n = x->n;
          acc->inflight = 0;
          acc->v.resize((size_t)16 * x->n);
          for (int l = 0; l < 32; ++l) acc->d[l] = ((WgArg*)L[l])->d;
          bool same = w->acc_hash.count(acc->d[0]) && w->acc_hash[acc->d[0]] == hash_acc(*acc);
          if (!w->fenced && !(same && !x->a))
            fail("wgmma", "wgmma.fence missing: registers were written (or first used) since the last fence", loc);
          for (int l = 0; l < 32; ++l)
            for (int i = 0; i < x->n / 2; ++i) acc->v[(size_t)(acc_row(l, i) * x->n + acc_col(l, i))] = acc->d[l][i];
          w->accs.push_back(std::move(nb));
        } else if (acc->n != x->n)
          fail("wgmma", "in-flight accumulator used with another shape", loc);
        WgOp o{};
        o.n = x->n;
        o.da = x->da;
        o.db = x->db;
        o.rs = x->a != nullptr;
        o.scale_d = x->sd;
        o.ta = x->ta;
        o.tb = x->tb;
        o.f16 = x->f16;
        o.acc = acc;
        o.seq = ++w->wg_seq;
        o.loc = loc;
        for (int l = 0; l < 32; ++l) o.a[l] = ((WgArg*)L[l])->a;
        ++acc->inflight;
        if (rt->opt.race) {  // reads by the warp's wgmma agent
          Clock c;
          for (int l = 0; l < 32; ++l) c.join(w->f[l]->clk);
          auto chk = [&](uint64_t desc, bool mnm, int mn0, int mn) {
            for_chunks(decode(desc), mnm, mn0, mn, [&](uint32_t a, int, int) {
              check_range(b, a, 16, "wgmma operand", loc);
              shadow(b, a, 16, false, (uint32_t)agent_wg(w), w->wg_committed + 1, c, true, false, loc);
            });
          };
          if (!o.rs) chk(o.da, o.ta, (w->id % (int)b->warps.size() % 4) * 16, 16);
          chk(o.db, o.tb, 0, o.n);
        }
        const bool rnd = rt->opt.async == Async::Random;
        if (w->q.empty() &&
            (rt->opt.async == Async::Eager || (rnd && rt->rand() & 1))) {  // the hardware may be this fast
          wg_exec(w, o);
          if (!rnd || rt->rand() & 1) {
            write_back(w, acc);
            return;
          }
        } else
          w->q.push_back(o);
        if (rt->opt.poison)
          for (int l = 0; l < 32; ++l) std::memset((void*)acc->d[l], 0xff, sizeof(float) * (size_t)acc->n / 2);
      },
      loc);
}
void wgmma_fence(Loc loc) {
  warp_coll(
      Op::WgFence, 0xffffffffu, true, nullptr, [](void* const*, uint32_t, Loc) { rt->running->warp->fenced = true; },
      loc);
}
void wgmma_commit(Loc loc) {
  warp_coll(
      Op::WgCommit, 0xffffffffu, true, nullptr,
      [](void* const*, uint32_t, Loc) {
        Warp* w = rt->running->warp;
        w->group_end.push_back(w->wg_seq);
        ++w->wg_committed;
      },
      loc);
}
void wgmma_wait(int n, Loc loc) {
  static thread_local int sn;
  sn = n;
  warp_coll(
      Op::WgWait, 0xffffffffu, true, nullptr,
      [](void* const*, uint32_t, Loc) {
        Warp* w = rt->running->warp;
        uint32_t keep = (uint32_t)sn,
                 end = w->group_end.size() > keep ? w->group_end[w->group_end.size() - 1 - keep] : 0;
        while (!w->q.empty() && w->q.front().seq <= end) {
          wg_exec(w, w->q.front());
          w->q.pop_front();
        }
        for (size_t i = 0; i < w->accs.size();)
          if (w->accs[i]->inflight == 0)
            write_back(w, w->accs[i].get());
          else
            ++i;
        w->fenced = false;
        if (rt->opt.race) {
          uint32_t t = w->wg_committed > keep ? w->wg_committed - keep : 0;
          for (int l = 0; l < 32; ++l) {
            auto& v = w->f[l]->clk.seen.c[agent_wg(w)];
            v = v < t ? t : v;
          }
        }
      },
      loc);
}
}  // namespace kw::emu
