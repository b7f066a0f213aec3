# Read by CMake after each project() of llama-cpp-python's build (CMAKE_PROJECT_INCLUDE), which always asks for this library
# of llama.cpp's own programs. A normal variable wins over the cache's.
set(LLAMA_BUILD_COMMON OFF)

if(PROJECT_NAME STREQUAL "ggml")
    # Which of the products' files are compiled depends on the processor, and some define the same names: as one piece they
    # do not compile on every processor, so each is compiled by itself.
    set(CMAKE_UNITY_BUILD OFF)
    # The products for Intel's matrix units crash: GCC leaves out what they write into the units' configuration
    # (ggml-org/llama.cpp#20824, #26954; seen with GCC 12). Without this macro ggml has none of them.
    if(NOT MSVC)
        add_compile_options(-U__AMX_INT8__)
    endif()
endif()
