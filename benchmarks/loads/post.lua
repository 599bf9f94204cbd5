-- A POST of the text POST_TEXT and of as many bytes as POST_BYTES says.
wrk.method = "POST"
wrk.headers["content-type"] = os.getenv("POST_TYPE")
wrk.body = os.getenv("POST_TEXT") .. string.rep("x", tonumber(os.getenv("POST_BYTES")))
