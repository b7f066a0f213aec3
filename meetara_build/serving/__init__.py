"""Built domains behind an OpenAI-compatible server: one base in memory, an adapter a request.

Not llama-cpp-python's own server, although a well-kept server beats ours. As of 0.3.36 its
``LlamaProxy`` has one model in memory at a time and knows an adapter as a setting of that model
(``ModelSettings.lora_path``): a request for another domain closes the base and loads it again, and a
request for a model that it does not know is answered by its first one without a word. Its
``llama_cpp.Llama`` sets the adapter once, as it is made, and keeps the attention cache from one
request to the next by the tokens alone: what one adapter computed would be another's. It renders
messages to one text before it tokenizes them, so that ``<|im_start|>`` in a user's text becomes a
control token. None of this can be set otherwise from outside.

::

    router      which domain a question belongs to, and how sure that is
    models      what is in memory: bases, adapters; which of them answers to which name
    generation  an answer: sampling, stop texts, whole characters
    worker      the queue, and the one thread that computes
    protocol    requests and answers as OpenAI has them; errors with the house's codes
    app         the HTTP face
    metrics     what /metrics tells
    reload      finds what builds have finished
"""
