import time
def test_probe(model, core):
    import torch
    from morph_tests.nodes.graph import run, sample, latent, conditioning, random_lora, with_lora, normal
    t=time.time()
    c=conditioning()
    x=normal(1,4,8,12,seed=1)*14
    a=sample(model,c,x,10); print("plain", time.time()-t, a.std())
    t=time.time()
    b=sample(with_lora(model,random_lora(1)),c,x,10); print("lora", time.time()-t, (a-b).abs().max(), (a-b).std())
    b=sample(model,conditioning(3),x,10); print("cond", time.time()-t, (a-b).abs().max(), (a-b).std())
    assert 0
