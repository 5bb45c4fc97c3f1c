from morph_tests.nodes.test_morph import *
def test_p(toy):
    import nodes
    model,clip,vae=toy
    image, prompt, lora = latent(0,size=(16,16)), conditioning(0), random_lora(0)
    for att in (0.0,.6):
        frames = morph_in_comfyui(model, [image] * 2, [prompt] * 2, [lora] * 2, replace(PLAIN, frames=8,attention=att))
        print((frames-frames[:1]).abs().amax((1,2,3)))
        with torch.inference_mode():
            (im,)=nodes.VAEDecode().decode(vae,{"samples":frames})
            print((im-im[:1]).abs().amax((1,2,3)))
            print(run("RescheduleAlphas",images=im,alphas_in=alpha_schedule(8),frames=0,metric="laplacian pyramid")[0])
    assert 0
