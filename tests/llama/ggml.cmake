# Read by CMake when it comes to ggml: its kernels run at full speed, while everything around them is
# built to be there soon.
set(CMAKE_C_FLAGS_RELEASE "-O3 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
