/** Inputs of Remote Image to Video that its price, and what it can be asked for, depend on. */
export const INPUTS = ["provider", "provider.model", "profile", "prompt", "negative_prompt", "resolution", "num_frames",
    "num_inference_steps", "guidance_scale", "max_cost", "max_cost_per_day",
    "longer_clips", "strict", "loras", "last_image", "segments", "options"];
