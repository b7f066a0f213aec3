# Read by CMake after each project() of llama-cpp-python's build (CMAKE_PROJECT_INCLUDE), which always asks for this library
# of llama.cpp's own programs. A normal variable wins over the cache's.
set(LLAMA_BUILD_COMMON OFF)
