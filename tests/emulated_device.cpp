// A device in the host's memory that refuses what CUDA refuses: tensors of the CPU beside its own, and its generators.
// What an operator reads is checked and copied to the CPU, which does the work.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <set>

namespace {

using at::Tensor;
using Names = std::set<std::string>;
constexpr auto kType = c10::DeviceType::PrivateUse1;
const c10::Device kEmulated(kType, 0);
const c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);
const Names kIndexes{"aten::index", "aten::_unsafe_index", "aten::_index_put_impl_"};  // indices may be on the CPU
const Names kFloatOnly{"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::addmv", "aten::dot"};

struct Allocator : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    auto data = c10::GetCPUAllocator()->allocate(n);
    data.unsafe_set_device(kEmulated);
    return data;
  }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
} allocator;

struct Generator : at::CPUGeneratorImpl {
  Generator() : at::CPUGeneratorImpl(1) { place(kEmulated); }
  void place(c10::Device device) { device_ = device; }
};

at::Generator& default_generator() {
  static auto made = at::make_generator<Generator>();
  return made;
}

struct Hooks : at::PrivateUse1HooksInterface {
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<Generator>(); }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
};

struct Guard : c10::impl::NoOpDeviceGuardImpl<kType> {
  c10::Device exchangeDevice(c10::Device) const override { return kEmulated; }
  c10::Device getDevice() const override { return kEmulated; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, kEmulated); }
};

struct OnHost {  // a generator, while the CPU draws from it
  Generator* rng = nullptr;
  ~OnHost() {
    if (rng) rng->place(kEmulated);
  }
};

void emulate(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.schema().name();
  const auto& arguments = op.schema().arguments();
  std::vector<Tensor> own, host;
  bool fine = true;
  OnHost drawn;
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto& value = stack->at(stack->size() - arguments.size() + i);
    auto before = host.size();
    auto see = [&](const c10::IValue& v) {
      if (v.isTensor() && v.toTensor().defined()) (v.toTensor().is_cpu() ? host : own).push_back(v.toTensor());
    };
    if (value.isTensorList() || (value.isList() && value.toList().elementType()->kind() == c10::TypeKind::OptionalType))
      for (const c10::IValue& v : value.toListRef()) see(v);
    see(value);
    if (host.size() > before && arguments[i].alias_info() && arguments[i].alias_info()->isWrite()) fine = false;
    if (kIndexes.count(name) && i == 1 && !before) host.clear();
    if (arguments[i].name() != "generator") continue;
    auto rng = value.isNone() ? default_generator() : value.toGenerator();
    TORCH_CHECK(rng.device() == kEmulated, "Expected an emulated device for generator but found ", rng.device());
    drawn.rng = static_cast<Generator*>(rng.unsafeGetGeneratorImpl());
    drawn.rng->place(c10::kCPU);
    value = rng;
  }
  for (auto& t : own)
    TORCH_CHECK(!kFloatOnly.count(name) || !at::isIntegralType(t.scalar_type(), true), name, " is not implemented for ",
                t.dtype(), " on the emulated device, as on CUDA");
  for (auto& t : host)
    TORCH_CHECK(own.empty() || (fine && t.dim() == 0 && host.size() == 1), "Expected all tensors to be on the same ",
                "device, but found at least two devices, ", kEmulated, " and cpu! (", name, " of ", t.sizes(), ")");
  at::native::cpu_fallback(op, stack);
}

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &allocator, kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &allocator, kKeys, c10::dtype_or_default(dtype));
}

Tensor on_host(const Tensor& t) {
  if (t.is_cpu()) return t;
  auto options = t.options().device(at::kCPU);
  return at::for_blob(t.mutable_data_ptr(), t.sizes()).strides(t.strides()).options(options).make_tensor();
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  on_host(to).copy_(on_host(from));
  return to;
}

const Tensor& resize(const Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
  auto& storage = self.storage();
  size_t bytes = (c10::multiply_integers(size) + self.storage_offset()) * self.dtype().itemsize();
  if (bytes > storage.nbytes()) {
    auto data = allocator.allocate(bytes);
    std::memcpy(data.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr(std::move(data));
    storage.set_nbytes(bytes);
  }
  self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return self;
}

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);
TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&emulate>()); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  c10::SetAllocator(kType, &allocator);
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  for (auto name : {"convolution", "convolution_backward", "mse_loss", "smooth_l1_loss"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&emulate>());
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", [](const Tensor& from, const Tensor& to) {
    return copy_from(from, from.sizes() == to.sizes() ? to : to.resize_(from.sizes()), false);
  });
  m.impl("resize_", &resize);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("set_.source_Storage", &at::native::set_);
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
}
TORCH_LIBRARY(emulated, m) {  // from one seed a GPU draws other numbers than the CPU
  m.def("seed(int seed) -> ()", [](int64_t seed) { default_generator().set_current_seed(~uint64_t(seed)); });
}

}  // namespace
